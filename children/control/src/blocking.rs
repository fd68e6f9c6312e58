//! Calls that block, from code that must not: a bounded number of them on threads of their own.

use std::sync::LazyLock;

use tokio::sync::Semaphore;

use crate::service::{Error, Result};

/// Does `work` on a thread for blocking work and waits for it.
///
/// # Errors
/// What `work` gives; [`Error::Busy`] when too many calls are under way already.
pub async fn call<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    call_within(&PERMITS, work).await
}

/// The same for work that is done again and again: when too many calls are under way it is left out, and gives nothing.
///
/// # Errors
/// What `work` gives.
pub async fn turn<T: Default + Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    turn_within(&PERMITS, work).await
}

async fn turn_within<T: Default + Send + 'static>(
    permits: &'static Semaphore,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match call_within(permits, work).await {
        Err(Error::Busy(_)) => Ok(T::default()),
        done => done,
    }
}

async fn call_within<T: Send + 'static>(
    permits: &'static Semaphore,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let Ok(permit) = permits.try_acquire() else {
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

#[cfg(test)]
mod tests {
    use super::*;

    static NONE: Semaphore = Semaphore::const_new(0);
    static ONE: Semaphore = Semaphore::const_new(1);

    #[tokio::test]
    async fn a_turn_is_left_out_when_too_much_is_under_way() {
        assert_eq!(call_within(&NONE, || Ok(1)).await.map_err(|error| error.kind()), Err("busy"));
        assert_eq!(turn_within(&NONE, || Ok(vec![1])).await, Ok(Vec::new()));
        assert_eq!(turn_within(&ONE, || Ok(vec![1])).await, Ok(vec![1]), "the next one is done");
        let failed = || Err::<Vec<u8>, _>(Error::Internal("no disk".into()));
        assert_eq!(turn_within(&ONE, failed).await.map_err(|error| error.kind()), Err("internal"));
    }
}
