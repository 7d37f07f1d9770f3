//! Power of Apple processors, through the library macmon, which reads what `powermetrics` reads but
//! needs no special rights.

use super::sensors::{Found, Reading, Scope, Sensor};
use macmon::{Metrics, Sampler};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Milliseconds over which the library averages power.
const INTERVAL: u32 = 100;

/// How often nothing may arrive before a figure is called stale.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is read: a name, what it covers, the scope of that, and its watts.
type Source = (&'static str, &'static str, Scope, fn(&Metrics) -> f32);

const SOURCES: [Source; 4] = [
    ("cpu", "CPU cores", Scope::Processor, |m| m.cpu_power),
    ("sys", "whole machine", Scope::Machine, |m| m.sys_power),
    ("gpu", "graphics", Scope::Part, |m| m.gpu_power),
    ("ram", "memory", Scope::Part, |m| m.ram_power),
];

/// Microjoules so far of each source, since when they are up to date, and why there are no more.
#[derive(Debug)]
struct State {
    microjoules: [f64; SOURCES.len()],
    at: Instant,
    failed: Option<String>,
}

/// One source's share of what a thread counts.
#[derive(Debug)]
pub(super) struct Counted {
    state: Arc<Mutex<State>>,
    source: usize,
}

impl Counted {
    pub(super) fn microjoules(&self) -> Result<f64, String> {
        let state =
            self.state.lock().map_err(|_| "the thread that reads macOS's sensors ended".to_owned())?;
        if let Some(reason) = &state.failed {
            return Err(reason.clone());
        }
        let age = state.at.elapsed();
        if age > PATIENCE {
            return Err(format!("macOS's sensors have shown nothing for {:.1} s", age.as_secs_f64()));
        }
        Ok(state.microjoules[self.source])
    }
}

/// Starts to count, if the library finds something to read.
pub(super) fn find(found: &mut Found) {
    let state =
        Arc::new(Mutex::new(State { microjoules: [0.0; SOURCES.len()], at: Instant::now(), failed: None }));
    let counting = state.clone();
    let (first, seen) = std::sync::mpsc::channel();
    // It ends when nobody reads any more, which it sees by holding the last reference.
    std::thread::spawn(move || {
        let failed = |reason: String| {
            if let Ok(mut state) = counting.lock() {
                state.failed = Some(reason);
            }
        };
        let mut sampler = match Sampler::new() {
            Ok(sampler) => sampler,
            Err(e) => return drop(first.send(Err(e.to_string()))),
        };
        while Arc::strong_count(&counting) > 1 {
            let metrics = match sampler.get_metrics(INTERVAL) {
                Ok(metrics) => metrics,
                Err(e) => {
                    let reason = format!("macOS's sensors cannot be read: {e}");
                    failed(reason.clone());
                    return drop(first.send(Err(reason)));
                }
            };
            let Ok(mut state) = counting.lock() else { return };
            let seconds = state.at.elapsed().as_secs_f64();
            state.at = Instant::now();
            for (joules, (.., watts)) in state.microjoules.iter_mut().zip(SOURCES) {
                *joules += f64::from(watts(&metrics)) * seconds * 1e6;
            }
            drop(state);
            let shown = SOURCES.map(|(.., watts)| watts(&metrics) > 0.0);
            // Only the first is waited for.
            let _ = first.send(Ok(shown));
        }
    });
    match seen.recv_timeout(PATIENCE) {
        Ok(Ok(shown)) => {
            for (source, (place, domain, scope, _)) in SOURCES.into_iter().enumerate() {
                if shown[source] {
                    let counted = Counted { state: state.clone(), source };
                    let reading = Reading::Counted(counted);
                    found.add(Sensor::new("macmon", place, domain.into(), scope, reading));
                }
            }
        }
        Ok(Err(reason)) => found.refused.push(reason),
        Err(_) => found.refused.push("macOS's sensors did not answer".into()),
    }
}
