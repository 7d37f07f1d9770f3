//! Removing what is half written when the user stops the program.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

/// What is to be removed.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Keeps a temporary file or directory on the list of what an interrupt removes.
pub struct Guard(PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut all) = TEMPORARY.lock() {
            all.retain(|path| *path != self.0);
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP remove `path` before they end the process; where the system does not let them
/// be caught, it stays behind.
pub fn guard(path: &Path) -> Guard {
    if let Ok(mut all) = TEMPORARY.lock() {
        all.push(path.into());
    }
    #[cfg(unix)]
    catch();
    Guard(path.into())
}

#[cfg(unix)]
fn catch() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // What `nohup` and shells have had ignored stays so.
        let ignored = crate::machine::linux::ignored_signals(Path::new("/"));
        let heard = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let caught = signal_hook::iterator::Signals::new(heard);
        let watch = |mut signals: signal_hook::iterator::Signals| {
            let thread = std::thread::Builder::new().name("signals".into());
            thread.spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    remove(signal);
                }
            })
        };
        // Files are written all the same.
        drop(caught.and_then(watch));
    });
}

/// Removes everything and ends the process as shells expect of one that a signal ended.
#[cfg(unix)]
fn remove(signal: i32) -> ! {
    let all = TEMPORARY.lock().map(|all| all.clone()).unwrap_or_default();
    for path in &all {
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        // Nobody is left to hear of it.
        drop(removed);
    }
    let what = if all.is_empty() { "" } else { "; what was half written is removed" };
    eprintln!("stopped by signal {signal}{what}");
    std::process::exit(128 + signal)
}
