//! `multusctl top`: the children in a live view.
//!
//! ```text
//! feed (threads) --news--\
//! keyboard ------- keys --> Model --draw--> Terminal
//! signals ------- flags --/
//! ```

mod draw;
mod feed;
mod keys;
mod model;
mod terminal;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use multus_ipc::time::unix_ns;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

use super::Context;
use super::output::{Failure, has_colour};
use draw::draw;
use feed::{Feed, News};
use model::{Action, Model};
use terminal::Terminal;

pub(crate) fn top(context: &Context) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::Message("top needs a terminal; \"multusctl status\" prints the same once".to_owned()));
    }
    let socket = context.dirs.control_socket();
    // Fails before the screen changes, with a message that stays.
    drop(context.client()?);
    let failed = |error: io::Error| Failure::Message(format!("terminal: {error}"));
    let signals = Signals::register().map_err(failed)?;
    let terminal = Terminal::take().map_err(failed)?;
    let (feed, news) = Feed::start(&socket);
    let ended = View { terminal: &terminal, signals, feed, news, model: Model::new(has_colour()) }.run();
    drop(terminal);
    ended.map_err(failed)
}

struct View<'a> {
    terminal: &'a Terminal,
    signals: Signals,
    feed: Feed,
    news: Receiver<News>,
    model: Model,
}

impl View<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut next_sample = Instant::now();
        loop {
            self.model.now_ns = unix_ns();
            self.take_news(&mut next_sample);
            let (width, height) = crate::sys::tty::size(io::stdout()).unwrap_or((80, 24));
            self.terminal.show(&draw(&self.model, width.into(), height.into()))?;
            let Some(typed) = self.terminal.read(FRAME)? else { return Ok(()) };
            for key in keys::parse(&typed) {
                match self.model.press(key) {
                    Action::Nothing => {}
                    Action::Quit => return Ok(()),
                    Action::Suspend => self.terminal.suspend()?,
                    Action::Redraw => self.terminal.take_again()?,
                    Action::Give { name, order } => self.feed.give(name, order),
                }
            }
            if self.signals.end.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.signals.stop.swap(false, Ordering::Relaxed) {
                self.terminal.suspend()?;
                self.signals.goes_on.store(false, Ordering::Relaxed);
            } else if self.signals.goes_on.swap(false, Ordering::Relaxed) {
                self.terminal.take_again()?;
            }
        }
    }

    fn take_news(&mut self, next_sample: &mut Instant) {
        for news in self.news.try_iter() {
            match news {
                News::Status(status) => {
                    let now = Instant::now();
                    let sample = now >= *next_sample;
                    if sample {
                        *next_sample = now + SAMPLE;
                    }
                    self.model.take_status(*status, sample);
                }
                News::Event(event) => self.model.take_event(*event),
                News::Trouble(trouble) => self.model.trouble = Some(trouble),
                News::Answer(answer) => self.model.answer = Some(answer),
            }
        }
    }
}

/// Signals that came; they wake the wait for keys.
#[derive(Debug)]
struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    goes_on: Arc<AtomicBool>,
}

impl Signals {
    fn register() -> io::Result<Self> {
        let flag = |signals: &[i32]| {
            let flag = Arc::new(AtomicBool::new(false));
            for &signal in signals {
                signal_hook::flag::register(signal, Arc::clone(&flag))?;
            }
            io::Result::Ok(flag)
        };
        // A changed size has no flag: waking up is enough, every frame asks for the size.
        flag(&[SIGWINCH])?;
        Ok(Self {
            end: flag(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT])?,
            stop: flag(&[SIGTSTP])?,
            goes_on: flag(&[SIGCONT])?,
        })
    }
}

/// Longest time between two frames: five in a second.
const FRAME: Duration = Duration::from_millis(200);
/// One point of a curve.
const SAMPLE: Duration = Duration::from_secs(1);
