//! Calls that block, from code that must not: a bounded number of them on threads of their own.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::service::{Error, Result};

/// Does `work` on a thread for blocking work and waits for it.
///
/// # Errors
/// What `work` gives; [`Error::Busy`] when too many calls are under way already.
pub async fn call<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let Ok(permit) = PERMITS.try_acquire() else {
        return Err(Error::Busy(format!("{MOST} calls are under way; try again")));
    };
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.unwrap_or_else(|error| Err(Error::Internal(format!("a call was broken off: {error}"))))
}

/// Under way and waiting for a thread.
const MOST: usize = 64;
static PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(MOST));
