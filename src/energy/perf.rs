//! The kernel's perf events for RAPL (`power/energy-pkg/` and its like): the same registers as
//! powercap shows, for machines on which only these can be opened.

use super::sensors::{Found, Reading, Scope, Sensor};
use crate::machine::linux::{cpu_list, number, text};
use perf_event::Builder;
use perf_event::events::Dynamic;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Events of the device `power`, what they cover, and the scope of that.
const EVENTS: [(&str, &str, Scope); 5] = [
    ("energy-pkg", "package", Scope::Processor),
    ("energy-psys", "psys", Scope::Machine),
    ("energy-cores", "core", Scope::Part),
    ("energy-gpu", "uncore", Scope::Part),
    ("energy-ram", "dram", Scope::Part),
];

/// Opens the events that `root/sys/bus/event_source/devices/power` lists, one for each of the CPUs
/// that it names, which is one of each package.
pub(super) fn find(root: &Path, found: &mut Found) {
    // The library takes a path that is not absolute as one below the system's own devices.
    let Ok(device) = root.join("sys/bus/event_source/devices/power").canonicalize() else { return };
    let cpus = cpu_list(&text(device.join("cpumask")).unwrap_or_else(|| "0".into()));
    for (event, domain, scope) in EVENTS {
        if !device.join("events").join(event).exists() {
            continue;
        }
        // The machine has one of these, however many packages there are.
        let of_all = scope == Scope::Machine;
        for (package, &cpu) in cpus.iter().enumerate().take(if of_all { 1 } else { cpus.len() }) {
            let name = format!("power/{event}/");
            match open(&device, event, cpu) {
                Ok(reading) => {
                    let domain = if of_all { domain.to_owned() } else { format!("{domain}-{package}") };
                    found.add(Sensor::new("perf", &format!("{name} on CPU {cpu}"), domain, scope, reading));
                }
                Err(error) => {
                    found.refuse("perf", scope, explain(root, &name, &error));
                }
            }
        }
    }
}

fn open(device: &Path, event: &str, cpu: u32) -> io::Result<Reading> {
    let mut dynamic = Dynamic::builder(device)?;
    dynamic.event(event)?;
    let other = |message: String| io::Error::other(message);
    let scale = dynamic.scale()?.ok_or_else(|| other(format!("{event}.scale is missing")))?;
    if !(scale.is_finite() && scale > 0.0) {
        return Err(other(format!("{event}.scale is {scale}, which is no scale")));
    }
    match dynamic.unit()?.as_deref() {
        Some("Joules") => {}
        unit => return Err(other(format!("its unit is {}, not Joules", unit.unwrap_or("not stated")))),
    }
    let counter = Builder::new(dynamic.build().map_err(|e| other(e.to_string()))?)
        .one_cpu(cpu as usize)
        .any_pid()
        // The registers cannot tell who took the energy; the kernel refuses to leave anybody out.
        .include_kernel()
        .include_hv()
        .enabled(true)
        .build()?;
    Ok(Reading::Perf { counter, unit: scale * 1e6 })
}

/// Why an event cannot be opened, and what to do about it.
fn explain(root: &Path, name: &str, error: &io::Error) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return format!("the perf event {name} cannot be opened: {error}");
    }
    let paranoid = number::<i32>(root.join("proc/sys/kernel/perf_event_paranoid"));
    let now =
        paranoid.map_or_else(String::new, |level| format!(" while kernel.perf_event_paranoid is {level}"));
    format!(
        "the perf event {name} may be opened by root only{now}; allow it until the next start of the system \
         with `sudo sysctl kernel.perf_event_paranoid=0`, or this program alone with `sudo setcap cap_perfmon+ep \
         $(command -v tritmark)`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A device `power` whose events are those of another device of the kernel: `kind` 1 is the
    /// software device, of which event 0 counts the nanoseconds of a CPU.
    fn tree(kind: &str, unit: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/bus/event_source/devices/power");
        for (file, content) in [
            ("type", kind),
            ("cpumask", "0"),
            ("format/event", "config:0-7"),
            ("events/energy-pkg", "event=0x00"),
            ("events/energy-pkg.scale", "1e-9"),
            ("events/energy-pkg.unit", unit),
        ] {
            let path = device.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{content}\n")).unwrap();
        }
        root
    }

    fn found(root: &Path) -> Found {
        let mut found = Found::default();
        find(root, &mut found);
        found
    }

    #[test]
    fn events_are_opened_scaled_and_counted() {
        let root = tree("1", "Joules");
        let mut found = found(root.path());
        let Some(sensor) = found.sensors.first_mut() else {
            // Containers may forbid perf events; the reason must then say so.
            assert!(found.refused[0].contains("power/energy-pkg/"), "{:?}", found.refused);
            return;
        };
        assert_eq!((sensor.domain.as_str(), sensor.scope), ("package-0", Scope::Processor));
        assert_eq!(sensor.source, "perf power/energy-pkg/ on CPU 0");
        sensor.joules().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        // A nanosecond of the CPU's clock stands for a nanojoule: one watt.
        let joules = sensor.joules().unwrap();
        assert!((0.09..1.0).contains(&joules), "{joules}");
    }

    #[test]
    fn what_cannot_be_opened_is_explained() {
        let reason = found(tree("4000000000", "Joules").path()).refused.remove(0);
        assert!(reason.contains("power/energy-pkg/ cannot be opened"), "{reason}");
        let reason = found(tree("1", "Watts").path()).refused.remove(0);
        assert!(reason.contains("Watts, not Joules"), "{reason}");
        assert!(found(Path::new("/nowhere")).refused.is_empty());

        let root = tree("1", "Joules");
        let paranoid = root.path().join("proc/sys/kernel/perf_event_paranoid");
        fs::create_dir_all(paranoid.parent().unwrap()).unwrap();
        fs::write(paranoid, "2\n").unwrap();
        let reason = explain(root.path(), "power/energy-pkg/", &ErrorKind::PermissionDenied.into());
        assert!(reason.contains("perf_event_paranoid is 2"), "{reason}");
        assert!(reason.contains("`sudo sysctl kernel.perf_event_paranoid=0`"), "{reason}");
    }
}
