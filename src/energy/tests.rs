//! Measuring on trees of files that behave as sensors do.

use super::*;
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;

/// A `/sys` of our own.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Tree(tempfile::tempdir().unwrap());
        for (path, content) in files {
            tree.write(path, content);
        }
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("sys").join(path)
    }

    /// Replaces a file at once, as a sensor's value changes at once.
    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn meter(&self) -> Meter {
        Meter::open(self.0.path(), None).unwrap()
    }
}

/// What each sensor covers, and whether the figure rests on it.
fn domains(tree: &Tree) -> Vec<(String, bool)> {
    tree.meter().sources().into_iter().map(|(_, domain, main)| (domain, main)).collect()
}

const RAPL: &str = "class/powercap/intel-rapl:0";
const ENERGY: &str = "class/powercap/intel-rapl:0/energy_uj";

fn package(energy: &str) -> Tree {
    Tree::new(&[
        ("class/powercap/intel-rapl:0/name", "package-0\n"),
        (ENERGY, energy),
        ("class/powercap/intel-rapl:0/max_energy_range_uj", "1000000\n"),
    ])
}

const SHORT: Windows = Windows { load: Duration::from_millis(150), idle: Duration::ZERO, as_needed: false };

fn measured(outcome: Outcome<MeasuredEnergy>) -> MeasuredEnergy {
    match outcome {
        Outcome::Measured(energy) => energy,
        Outcome::NotMeasured(reason) => panic!("not measured: {reason}"),
    }
}

fn reason(outcome: Outcome<MeasuredEnergy>) -> String {
    match outcome {
        Outcome::NotMeasured(reason) => reason,
        Outcome::Measured(energy) => panic!("measured: {energy:?}"),
    }
}

/// A load that shows `values` one after the other and then the last one for good.
fn showing<'a>(tree: &'a Tree, path: &'a str, values: &'a [u64]) -> impl FnMut() -> Result<()> + 'a {
    let next = Cell::new(0);
    move || {
        tree.write(path, &format!("{}\n", values[next.get().min(values.len() - 1)]));
        next.set(next.get() + 1);
        std::thread::sleep(POLL * 3 / 2);
        Ok(())
    }
}

/// A load under which a file moves a little around a value.
fn flickering<'a>(tree: &'a Tree, path: &'a str, value: u64) -> impl FnMut() -> Result<()> + 'a {
    let mut up = false;
    move || {
        up = !up;
        tree.write(path, &format!("{}\n", value + u64::from(up)));
        std::thread::sleep(POLL * 2);
        Ok(())
    }
}

#[test]
fn a_package_that_cannot_be_read_makes_the_others_no_figure() {
    let tree = package("900000\n");
    tree.write("class/powercap/intel-rapl:1/name", "package-1\n");
    tree.write("class/powercap/intel-rapl:1/energy_uj", "none\n");
    let meter = tree.meter();
    let reason = meter.unusable().unwrap();
    assert!(reason.contains("not the whole") && reason.contains("'none'"), "{reason}");
    assert!(meter.sources().iter().all(|(_, _, measured)| !measured), "{:?}", meter.sources());
}

#[test]
fn a_counter_that_stops_in_the_middle_is_no_measurement() {
    let tree = package("100\n");
    let windows = Windows { load: POLL * 40, ..SHORT };
    let outcome = tree.meter().measure(windows, 1, &mut showing(&tree, ENERGY, &[200, 300, 400])).unwrap();
    assert!(reason(outcome).contains("stopped"));
}

#[test]
fn a_counter_that_stops_after_the_load_has_no_power_at_rest() {
    let tree = package("100\n");
    let mut meter = tree.meter();
    let mut window = |values: &[u64]| {
        let mut load = showing(&tree, ENERGY, values);
        meter.window(|| values.iter().try_for_each(|_| load())).unwrap().0
    };
    let windows = [window(&[200, 300, 400]), window(&[500, 600, 700]), window(&[700, 700, 700])];
    let reason = meter.figure(windows.each_ref(), &[Some(0.01)], 1).unwrap_err();
    assert!(reason.contains("stopped: it showed nothing new in"), "{reason}");
}

#[test]
fn a_counter_that_leaps_is_no_measurement() {
    let tree = package("0\n");
    // 10 kJ within a tenth of a second; before the first rise, a second may have passed.
    let leap = &[15_000_000_000, 15_000_100_000, 25_000_100_000, 25_000_200_000];
    let windows = Windows { load: POLL * 10, ..SHORT };
    let outcome = tree.meter().measure(windows, 1, &mut showing(&tree, ENERGY, leap)).unwrap();
    assert!(reason(outcome).contains("would be 10000 J"));
    // The first rise of a window is of the time since the last one of the window before.
    let tree = package("0\n");
    let mut meter = tree.meter();
    let mut window = |values: &[u64]| {
        let mut load = showing(&tree, ENERGY, values);
        meter.window(|| values.iter().try_for_each(|_| load())).unwrap().0.sources.swap_remove(0)
    };
    window(&[100, 200]).unwrap();
    assert!(window(&[10_000_000_000]).unwrap_err().contains("would be 10000 J"));
}

#[test]
fn a_rise_that_is_not_like_the_others_is_told() {
    let steady = package("0\n");
    steady.write("class/powercap/intel-rapl:0/max_energy_range_uj", "100000000\n");
    let sensor = &steady.meter().sensors[0];
    let rises = |leap: f64| [vec![(2.5, 0.05); 20], vec![(leap, 0.05)]].concat();
    assert_eq!(doubt(sensor, &rises(7.0)), None);
    let said = doubt(sensor, &rises(40.0)).unwrap();
    assert!(said.contains("rose by 40.000 J") && said.contains("its usual 50.0 W"), "{said}");
    // Too few to know what is usual; and what took as long as it should.
    assert_eq!(doubt(sensor, &[(1.0, 1.0), (40.0, 1.0)]), None);
    assert_eq!(doubt(sensor, &[vec![(2.5, 0.05); 20], vec![(40.0, 0.8)]].concat()), None);
    let said = doubt(sensor, &[(60.0, 1.0)]).unwrap();
    assert!(said.contains("started again"), "{said}");
}

#[test]
fn what_shows_the_whole_goes_before_a_part_of_it() {
    let tree = package("900000\n");
    tree.write("class/powercap/intel-rapl:1/name", "package-1\n");
    tree.write("class/powercap/intel-rapl:1/energy_uj", "none\n");
    tree.write("class/powercap/intel-rapl:2/name", "psys\n");
    tree.write("class/powercap/intel-rapl:2/energy_uj", "5\n");
    assert_eq!(domains(&tree), [("package-0".into(), false), ("psys".into(), true)]);
}

#[test]
fn what_is_modelled_by_the_kernel_is_no_measurement() {
    let tree = Tree::new(&[
        ("class/powercap/dtpm:0/name", "soc\n"),
        ("class/powercap/dtpm:0/power_uw", "5000000\n"),
    ]);
    assert!(tree.meter().sources().is_empty());
    assert!(tree.meter().unusable().unwrap().contains("not measured"));
}

#[test]
fn a_power_that_never_changes_stands_still() {
    let tree = Tree::new(&[
        ("class/hwmon/hwmon0/name", "power_meter\n"),
        ("class/hwmon/hwmon0/power1_average", "10000000\n"),
    ]);
    let load = &mut || {
        std::thread::sleep(POLL);
        Ok(())
    };
    assert!(reason(tree.meter().measure(SHORT, 1, load).unwrap()).contains("stood still"));
}

#[test]
fn a_counter_that_is_updated_often_is_known_to_be() {
    let tree = package("0\n");
    let done = std::sync::atomic::AtomicBool::new(false);
    let mut meter = tree.meter();
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1.. {
                tree.write(ENERGY, &format!("{n}\n"));
                if done.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // On a busy machine the writer is held up now and then.
        let seen = (0..50).any(|_| meter.fast_periods()[0].is_some_and(|period| period < 0.02));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        seen
    });
    assert!(seen);
    assert_eq!(meter.fast_periods(), [None], "nothing writes it any more");
}

#[test]
fn what_is_there_is_found_by_its_number_and_its_place() {
    let tree = Tree::new(&[
        ("class/hwmon/hwmon0/name", "amd_energy\n"),
        ("class/hwmon/hwmon0/energy1_label", "Ecore000\n"),
        ("class/hwmon/hwmon0/energy1_input", "1\n"),
        ("class/hwmon/hwmon0/energy65_label", "Esocket0\n"),
        ("class/hwmon/hwmon0/energy65_input", "1\n"),
    ]);
    let main: Vec<_> = tree.meter().sources().into_iter().filter(|s| s.2).collect();
    assert_eq!(main, [("hwmon amd_energy hwmon0/energy65".into(), "Esocket0".into(), true)]);
    let tree = Tree::new(&[
        ("class/powercap/arm-scmi:0/name", "soc\n"),
        ("class/powercap/arm-scmi:0/power_uw", "1\n"),
    ]);
    assert_eq!(tree.meter().sources(), [("powercap arm-scmi:0".into(), "soc".into(), true)]);
}

#[test]
fn a_log_that_does_not_cover_the_run_costs_one_wait() {
    let tree = package("5\n");
    let log = tree.path("log.csv");
    fs::write(&log, "10,30\n20,30\n").unwrap();
    let mut meter = Meter::open(tree.0.path(), Some(&log)).unwrap();
    let mut ran = false;
    let mut measure = || {
        let outcome = meter.measure(SHORT, 1, &mut || {
            ran = true;
            Ok(())
        });
        reason(outcome.unwrap())
    };
    let said = measure();
    assert!(said.starts_with("log.csv covers 10 to 20"), "{said}");
    let start = Instant::now();
    assert_eq!(measure(), said);
    assert!(start.elapsed() < Duration::from_secs(5) && !ran);
}

#[test]
fn a_counter_that_wraps_is_unwrapped_each_time() {
    let values = [950_000, 100_000, 600_000, 50_000];
    let windows = Windows { load: POLL * 9, ..SHORT };
    // A machine that is busy elsewhere may keep the meter from looking in time, but not each time.
    let mut energies = (0..5).map(|_| {
        let tree = package("900000\n");
        measured(tree.meter().measure(windows, 3, &mut showing(&tree, ENERGY, &values)).unwrap())
    });
    // 50 000, then 50 000 + 100 000, 500 000, 400 000 + 50 000 µJ.
    let energy = energies.find(|e| (e.gross_joules - 1.15).abs() < 1e-9).expect("each wrap is seen");
    assert_eq!((energy.source.as_str(), energy.domain.as_str()), ("powercap intel-rapl:0", "package-0"));
    assert_eq!(energy.tokens % 3, 0);
    assert!((energy.joules_per_token * energy.tokens as f64 - energy.gross_joules).abs() < 1e-12);
    assert!(energy.warnings.iter().any(|w| w.starts_with("Too short")), "{:?}", energy.warnings);
}

#[test]
fn a_counter_that_falls_without_a_range_is_no_measurement() {
    let tree = package("900000\n");
    fs::remove_file(tree.path(RAPL).join("max_energy_range_uj")).unwrap();
    let outcome = tree.meter().measure(SHORT, 1, &mut showing(&tree, ENERGY, &[100])).unwrap();
    assert!(reason(outcome).contains("fell from 900000 to 100 µJ and states no range"));
    // A range of nothing is none.
    let tree = package("900000\n");
    tree.write("class/powercap/intel-rapl:0/max_energy_range_uj", "0\n");
    let outcome = tree.meter().measure(SHORT, 1, &mut showing(&tree, ENERGY, &[100])).unwrap();
    assert!(reason(outcome).contains("states no range"));
}

#[test]
fn a_counter_that_begins_anew_is_no_measurement() {
    let tree = package("1000000\n");
    tree.write("class/powercap/intel-rapl:0/max_energy_range_uj", "262143328850\n");
    let outcome = tree.meter().measure(SHORT, 1, &mut showing(&tree, ENERGY, &[1_500_000, 0])).unwrap();
    assert!(reason(outcome).contains("would be 262142 J"));
}

#[test]
fn a_package_that_stands_still_beside_one_that_does_not_is_no_measurement() {
    let tree = package("1\n");
    tree.write("class/powercap/intel-rapl:1/name", "package-1\n");
    tree.write("class/powercap/intel-rapl:1/energy_uj", "5\n");
    let outcome = tree.meter().measure(SHORT, 1, &mut showing(&tree, ENERGY, &[10, 20, 30, 40])).unwrap();
    assert!(reason(outcome).contains("intel-rapl:1 stood still"));
}

#[test]
fn a_power_that_cannot_be_is_no_measurement() {
    let power = "class/hwmon/hwmon0/power1_average";
    for odd in ["nan", "inf", "-5000000", "4294967295000000"] {
        let tree = Tree::new(&[("class/hwmon/hwmon0/name", "power_meter\n"), (power, "10000000\n")]);
        let mut meter = tree.meter();
        let outcome = meter.measure(SHORT, 1, &mut || {
            tree.write(power, odd);
            std::thread::sleep(POLL);
            Ok(())
        });
        assert!(reason(outcome.unwrap()).contains("no power"), "{odd}");
        assert!(tree.meter().unusable().unwrap().contains("no power"), "{odd}");
    }
}

#[test]
fn a_counter_that_stands_still_is_no_measurement() {
    let tree = package("900000\n");
    let outcome = tree.meter().measure(SHORT, 1, &mut showing(&tree, ENERGY, &[900_000])).unwrap();
    assert!(reason(outcome).contains("stood still"));
}

#[test]
fn a_counter_that_does_not_count_is_not_tried_again() {
    let tree = package("900000\n");
    let mut meter = tree.meter();
    let windows = Windows { load: Duration::from_secs_f64(STOOD_STILL), ..SHORT };
    let load = &mut || {
        std::thread::sleep(POLL);
        Ok(())
    };
    let first = reason(meter.measure(windows, 1, load).unwrap());
    assert!(first.contains("stood still"));
    let again = meter.measure(windows, 1, &mut || panic!("it is known not to count")).unwrap();
    assert_eq!(reason(again), first);
    // A window too short to be believed leaves it open.
    let mut meter = tree.meter();
    assert!(reason(meter.measure(SHORT, 1, load).unwrap()).contains("stood still"));
    measured(meter.measure(SHORT, 1, &mut showing(&tree, ENERGY, &[950_000, 1_000_000])).unwrap());
}

#[test]
fn a_file_that_vanishes_or_breaks_is_no_measurement() {
    let tree = package("1\n");
    let outcome = tree.meter().measure(SHORT, 1, &mut || {
        let _ = fs::remove_file(tree.path(ENERGY));
        std::thread::sleep(POLL);
        Ok(())
    });
    assert!(reason(outcome.unwrap()).contains("is not there"));
    tree.write(ENERGY, "12\n");
    let mut meter = tree.meter();
    let outcome = meter.measure(SHORT, 1, &mut || {
        tree.write(ENERGY, "many\n");
        std::thread::sleep(POLL);
        Ok(())
    });
    assert!(reason(outcome.unwrap()).contains("'many', which is no number"));
}

#[test]
fn sub_zones_and_twins_are_never_added() {
    let zone = |path: &str, name: &str| {
        [
            (format!("class/powercap/{path}/name"), format!("{name}\n")),
            (format!("class/powercap/{path}/energy_uj"), "0\n".into()),
        ]
    };
    let files: Vec<(String, String)> = [
        zone("intel-rapl:0", "package-0"),
        zone("intel-rapl:1", "package-1"),
        zone("intel-rapl:2", "psys"),
        // Sub-zones stand in the class and in their parent.
        zone("intel-rapl:0/intel-rapl:0:0", "core"),
        zone("intel-rapl:0:0", "core"),
        zone("intel-rapl:1/intel-rapl:1:0", "core"),
        zone("intel-rapl:0/intel-rapl:0:1", "dram"),
        zone("intel-rapl-mmio:0", "package-0"),
        zone("intel-rapl-mmio:0/intel-rapl-mmio:0:0", "dram"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let files: Vec<_> = files.iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    let tree = Tree::new(&files);
    let mut sources: Vec<_> = tree.meter().sources();
    sources.sort();
    let expected = [
        ("powercap intel-rapl:0", "package-0", true),
        ("powercap intel-rapl:0:0", "core", false),
        ("powercap intel-rapl:0:1", "dram", false),
        ("powercap intel-rapl:1", "package-1", true),
        ("powercap intel-rapl:1:0", "core", false),
        ("powercap intel-rapl:2", "psys", false),
    ];
    assert_eq!(sources, expected.map(|(s, d, m)| (s.to_owned(), d.to_owned(), m)));

    let joules = Cell::new(0);
    let energy = tree.meter().measure(SHORT, 1, &mut || {
        joules.set(joules.get() + 1_000_000);
        for (zone, share) in [("intel-rapl:0", 1), ("intel-rapl:1", 2), ("intel-rapl:0/intel-rapl:0:1", 5)] {
            tree.write(&format!("class/powercap/{zone}/energy_uj"), &format!("{}\n", joules.get() * share));
        }
        std::thread::sleep(POLL);
        Ok(())
    });
    let energy = measured(energy.unwrap());
    assert_eq!(energy.domain, "package-0 + package-1");
    assert_eq!(energy.gross_joules, 3.0 * joules.get() as f64 * 1e-6);
    let dram = energy.domains.iter().find(|d| d.domain == "dram").unwrap();
    assert_eq!(dram.gross_joules, 5.0 * joules.get() as f64 * 1e-6);
    assert!(energy.domains.iter().all(|d| d.domain != "psys"), "what stood still has no figure");
}

#[test]
fn a_package_of_several_dies_has_twins_too() {
    let zones = [
        ("intel-rapl:0", "package-0-die-0"),
        ("intel-rapl:1", "package-0-die-1"),
        ("intel-rapl:2", "package-10-die-0"),
        ("intel-rapl-tpmi:0", "package-0"),
        ("intel-rapl-tpmi:1", "package-1"),
        ("intel-rapl-mmio:0", "package-10"),
    ];
    let files: Vec<(String, &str)> = zones
        .iter()
        .flat_map(|(zone, name)| {
            let file = |file: &str| format!("class/powercap/{zone}/{file}");
            [(file("name"), *name), (file("energy_uj"), "5\n")]
        })
        .collect();
    let files: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    let domains: Vec<_> =
        Tree::new(&files).meter().sources().into_iter().map(|(_, domain, _)| domain).collect();
    // Of the twins, package-1 alone is shown by nobody else.
    assert_eq!(domains, ["package-0-die-0", "package-0-die-1", "package-10-die-0", "package-1"]);
}

#[test]
fn dies_beside_their_package_are_its_twins() {
    let tree = package("900000\n");
    for die in 0..2 {
        let zone = format!("class/powercap/intel-rapl-tpmi:{die}");
        tree.write(&format!("{zone}/name"), &format!("package-0-die-{die}\n"));
        tree.write(&format!("{zone}/energy_uj"), "5\n");
    }
    assert_eq!(domains(&tree), [("package-0".into(), true)]);
}

#[test]
fn meters_of_acpi_lie_in_the_device_and_several_are_not_the_machine() {
    let one = [
        ("class/hwmon/hwmon0/device/name", "power_meter\n"),
        ("class/hwmon/hwmon0/device/power1_average", "150000000\n"),
    ];
    let sources = Tree::new(&one).meter().sources();
    assert_eq!(sources, [("hwmon power_meter hwmon0/power1".into(), "power_meter power1".into(), true)]);
    let more = [
        ("class/hwmon/hwmon1/name", "power_meter\n"),
        ("class/hwmon/hwmon1/device/power1_average", "40000000\n"),
        ("class/hwmon/hwmon1/device/power1_oem_info", "CPU Power Socket 0\n"),
    ];
    let tree = Tree::new(&[&one[..], &more].concat());
    let energy = measured(
        tree.meter()
            .measure(
                SHORT,
                1,
                &mut flickering(&tree, "class/hwmon/hwmon0/device/power1_average", 150_000_000),
            )
            .unwrap(),
    );
    assert_eq!(energy.domain, "power_meter power1");
    let said = energy
        .warnings
        .iter()
        .any(|w| w.contains("does not say what the sensor covers. Neither does it of 1"));
    assert!(said, "{:?}", energy.warnings);
}

#[test]
fn a_counter_of_cores_is_part_of_its_package() {
    let tree = Tree::new(&[
        ("class/hwmon/hwmon0/name", "chip\n"),
        ("class/hwmon/hwmon0/power1_input", "20000000\n"),
        ("class/hwmon/hwmon0/power1_label", "CPU package\n"),
        ("class/hwmon/hwmon0/power2_input", "15000000\n"),
        ("class/hwmon/hwmon0/power2_label", "CPU cores\n"),
    ]);
    assert_eq!(domains(&tree), [("CPU package".to_owned(), true), ("CPU cores".to_owned(), false)]);
}

#[test]
fn a_slow_counter_beside_a_fast_one_is_still_slow() {
    let tree = Tree::new(&[
        ("class/powercap/intel-rapl:0/name", "package-0\n"),
        ("class/powercap/intel-rapl:0/energy_uj", "5\n"),
        ("class/powercap/intel-rapl:1/name", "package-1\n"),
        ("class/powercap/intel-rapl:1/energy_uj", "5\n"),
    ]);
    let window = |seconds: f64, slow: u32| {
        let of = |joules, period, updates| Ok(Counted { joules, period, updates, watts: None, doubt: None });
        Window { seconds, sources: vec![of(20.0, Some(0.05), 40), of(45.0, None, slow)] }
    };
    let fast = [Some(0.001), None];
    let energy = tree.meter().figure([&window(2.0, 0), &window(2.0, 1), &window(2.0, 0)], &fast, 1).unwrap();
    assert_eq!((energy.update_period_s, energy.idle_watts), (None, None));
    let said = |start: &str| energy.warnings.iter().any(|w| w.starts_with(start));
    assert!(said("Too short") && said("Idle power was not measured"), "{:?}", energy.warnings);
}

#[test]
fn a_package_that_only_mmio_shows_is_used() {
    let tree = Tree::new(&[
        ("class/powercap/intel-rapl-mmio:0/name", "package-0\n"),
        ("class/powercap/intel-rapl-mmio:0/energy_uj", "5\n"),
    ]);
    assert_eq!(tree.meter().sources(), [("powercap intel-rapl-mmio:0".into(), "package-0".into(), true)]);
}

#[test]
fn zones_below_their_control_type_alone_are_found_and_those_that_lie_in_both_once() {
    let below = [
        ("class/powercap/intel-rapl/intel-rapl:0/name", "package-0\n"),
        ("class/powercap/intel-rapl/intel-rapl:0/energy_uj", "5\n"),
        ("class/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0/name", "core\n"),
        ("class/powercap/intel-rapl/intel-rapl:0/intel-rapl:0:0/energy_uj", "5\n"),
    ];
    let tree = Tree::new(&below);
    let sources = [
        ("powercap intel-rapl:0".into(), "package-0".into(), true),
        ("powercap intel-rapl:0:0".into(), "core".into(), false),
    ];
    assert_eq!(tree.meter().sources(), sources);
    tree.write(&format!("{RAPL}/name"), "package-0\n");
    tree.write(ENERGY, "5\n");
    assert_eq!(tree.meter().sources(), sources);
}

#[test]
fn idle_power_is_taken_off_and_its_change_is_told() {
    // 10 W at rest before, 40 W under load, 20 W at rest after.
    let tree = Tree::new(&[
        ("class/hwmon/hwmon0/name", "power_meter\n"),
        ("class/hwmon/hwmon0/power1_average", "10000000\n"),
    ]);
    let power = |watts: u32| tree.write("class/hwmon/hwmon0/power1_average", &format!("{watts}000000\n"));
    let mut meter = tree.meter();
    let rest = |watts| {
        power(watts);
        move || {
            std::thread::sleep(POLL * 4);
            Ok(0u64)
        }
    };
    let fast = meter.fast_periods();
    let (before, _) = meter.window(rest(10)).unwrap();
    let (loaded, _) = meter.window(rest(40)).unwrap();
    let (after, _) = meter.window(rest(20)).unwrap();
    let energy = meter.figure([&before, &loaded, &after], &fast, 10).unwrap();
    let near = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 0.1, "{a} is not about {b}");
    near(energy.gross_joules / energy.seconds, 40.0);
    near(energy.idle_watts.unwrap(), 15.0);
    near(energy.net_joules.unwrap() / energy.seconds, 25.0);
    assert!(energy.warnings[0].starts_with("Idle power was 1"), "{:?}", energy.warnings);
    assert_eq!(energy.source, "hwmon power_meter hwmon0/power1");
}

#[test]
fn a_net_figure_that_a_slow_counter_blurs_is_said_to_be_so() {
    let meter = package("1\n").meter();
    let blurred = |period: f64, load: f64| {
        let window = |seconds, joules| Window {
            seconds,
            sources: vec![Ok(Counted { joules, period: Some(period), updates: 3, watts: None, doubt: None })],
        };
        let energy = meter.figure([&window(3.0, 94.0), &window(10.0, load), &window(3.0, 95.0)], &[None], 1);
        let found = energy.unwrap().warnings.into_iter().find(|w| w.starts_with("The net figure"));
        found.map(|w| w.split(':').next().unwrap_or_default().to_owned())
    };
    // 31.5 W at rest: an update of 0.95 s is 99.75 J over 10 s of rest and 33.06 J of the load.
    assert_eq!(blurred(0.95, 348.0).unwrap(), "The net figure of 33.000 J may be off by 132.810 J");
    assert_eq!(blurred(0.001, 347.0), None);
    assert_eq!(blurred(0.1, 3470.0), None);
}

#[test]
fn zones_that_cannot_be_used_are_named() {
    let tree = Tree::new(&[
        ("class/powercap/intel-rapl:0/name", "package-0\n"),
        ("class/powercap/intel-rapl:1/energy_uj", "1\n"),
    ]);
    std::os::unix::fs::symlink("nowhere", tree.path("class/powercap/intel-rapl:2")).unwrap();
    let refused = tree.meter().refused.join("\n");
    for reason in [
        "intel-rapl:0 (package-0) shows neither energy_uj",
        "intel-rapl:1 has no name",
        "zones are hidden here",
    ] {
        assert!(refused.contains(reason), "{refused}");
    }
    let file = Tree::new(&[("class/powercap", "no folder\n")]);
    assert!(file.meter().refused[0].contains("powercap cannot be read"), "{:?}", file.meter().refused);
}

#[test]
fn optics_of_a_network_card_are_not_the_machine() {
    let tree = Tree::new(&[
        ("class/hwmon/hwmon0/name", "sfp_eth0\n"),
        ("class/hwmon/hwmon0/power1_label", "TX_power\n"),
        ("class/hwmon/hwmon0/power1_input", "500\n"),
    ]);
    assert!(tree.meter().unusable().unwrap().contains("no energy sensor"));
}

#[test]
fn rails_are_told_apart_by_their_labels() {
    let tree = Tree::new(&[
        ("class/hwmon/hwmon3/name", "ina3221\n"),
        ("class/hwmon/hwmon3/in1_label", "VDD_IN\n"),
        ("class/hwmon/hwmon3/in1_input", "5000\n"),
        ("class/hwmon/hwmon3/curr1_input", "3000\n"),
        ("class/hwmon/hwmon3/in2_label", "VDD_CPU_GPU_CV\n"),
        ("class/hwmon/hwmon3/in2_input", "5000\n"),
        ("class/hwmon/hwmon3/curr2_input", "1000\n"),
        ("class/hwmon/hwmon3/in3_label", "VDD_SOC\n"),
        ("class/hwmon/hwmon3/in3_input", "5000\n"),
        ("class/hwmon/hwmon3/curr3_input", "500\n"),
        ("class/hwmon/hwmon4/name", "amdgpu\n"),
        ("class/hwmon/hwmon4/power1_average", "90000000\n"),
    ]);
    let mut meter = tree.meter();
    assert_eq!(
        meter.sources(),
        [("in1", "VDD_IN", true), ("in2", "VDD_CPU_GPU_CV", false), ("in3", "VDD_SOC", false)]
            .map(|(n, d, main)| (format!("hwmon ina3221 hwmon3/{n}"), d.into(), main))
    );
    let mut load = flickering(&tree, "class/hwmon/hwmon3/curr1_input", 3000);
    let energy = measured(meter.measure(SHORT, 1, &mut load).unwrap());
    let watts = energy.gross_joules / energy.seconds;
    assert!((watts - 15.0).abs() < 0.5, "{watts}");
}

#[test]
fn rails_that_leave_out_the_processor_are_no_figure() {
    let rails = [(1, "VDD_GPU_SOC"), (2, "VDD_CPU_CV"), (3, "VIN_SYS_5V0")];
    let tree = Tree::new(&[("class/hwmon/hwmon3/name", "ina3221\n")]);
    for (n, rail) in rails {
        tree.write(&format!("class/hwmon/hwmon3/in{n}_label"), rail);
        tree.write(&format!("class/hwmon/hwmon3/in{n}_input"), "5000");
        tree.write(&format!("class/hwmon/hwmon3/curr{n}_input"), "1000");
    }
    // Memory's rail, and a channel with nothing on it.
    tree.write("class/hwmon/hwmon4/name", "ina3221\n");
    for (n, rail) in [(1, "NC"), (2, "VDDQ_VDD2_1V8AO"), (3, "VDD_OF_ITS_OWN")] {
        tree.write(&format!("class/hwmon/hwmon4/in{n}_label"), rail);
        tree.write(&format!("class/hwmon/hwmon4/in{n}_input"), "1800");
        tree.write(&format!("class/hwmon/hwmon4/curr{n}_input"), "300");
    }
    // A shunt's voltage and the sum of all currents.
    tree.write("class/hwmon/hwmon3/in4_input", "800");
    tree.write("class/hwmon/hwmon3/curr4_input", "3000");
    let found = domains(&tree);
    assert_eq!(found[..3], rails.map(|(_, rail)| (rail.to_owned(), false)));
    assert!(found.iter().all(|(_, main)| !main), "{found:?}");
    assert!(tree.meter().unusable().unwrap().contains("only parts"));
}

#[test]
fn energy_and_power_of_one_chip_are_not_added() {
    let tree = Tree::new(&[
        ("class/hwmon/hwmon0/name", "scmi_sensors\n"),
        ("class/hwmon/hwmon0/energy1_input", "5\n"),
        ("class/hwmon/hwmon0/energy1_label", "CPU_ENERGY\n"),
        ("class/hwmon/hwmon0/power1_input", "30000000\n"),
        ("class/hwmon/hwmon0/power1_label", "CPU_POWER\n"),
    ]);
    assert_eq!(domains(&tree), [("CPU_ENERGY".to_owned(), true), ("CPU_POWER".to_owned(), false)]);
}

#[test]
fn batteries_count_only_while_they_discharge() {
    let status = "class/power_supply/BAT0/status";
    let tree = Tree::new(&[
        ("class/power_supply/AC/type", "Mains\n"),
        ("class/power_supply/BAT0/type", "Battery\n"),
        (status, "Charging\n"),
        ("class/power_supply/BAT0/voltage_now", "12000000\n"),
        ("class/power_supply/BAT0/current_now", "1500000\n"),
    ]);
    assert!(tree.meter().unusable().unwrap().contains("unplug the charger"));
    tree.write(status, "Discharging\n");
    let mut meter = tree.meter();
    assert_eq!(meter.unusable(), None);
    let current = "class/power_supply/BAT0/current_now";
    let mut load = flickering(&tree, current, 1_500_000);
    let energy = measured(meter.measure(SHORT, 1, &mut load).unwrap());
    let watts = energy.gross_joules / energy.seconds;
    assert!((watts - 18.0).abs() < 2.0, "{watts}");
    // A charger that is too weak, and one that feeds the other battery.
    for (supply, files) in [
        ("AC", [("type", "Mains"), ("online", "1")]),
        ("BAT1", [("type", "Battery"), ("status", "Charging")]),
    ] {
        for (file, content) in files {
            tree.write(&format!("class/power_supply/{supply}/{file}"), content);
        }
        assert!(tree.meter().unusable().unwrap().contains(supply));
        fs::remove_dir_all(tree.path(&format!("class/power_supply/{supply}"))).unwrap();
    }
    // A charger that is plugged in meanwhile.
    let mut meter = tree.meter();
    let outcome = meter.measure(SHORT, 1, &mut || {
        tree.write(status, "Charging\n");
        std::thread::sleep(POLL);
        Ok(())
    });
    assert!(reason(outcome.unwrap()).contains("its status is \"Charging\""));
    tree.write(status, "Discharging\n");
    // Two batteries that discharge feed the machine together.
    for (file, content) in [("type", "Battery"), ("status", "Discharging"), ("power_now", "6000000")] {
        tree.write(&format!("class/power_supply/BAT1/{file}"), content);
    }
    let energy =
        measured(tree.meter().measure(SHORT, 1, &mut flickering(&tree, current, 1_500_000)).unwrap());
    let watts = energy.gross_joules / energy.seconds;
    assert!((watts - 24.0).abs() < 2.0, "{watts}");
}

#[test]
fn a_battery_that_gives_and_cannot_be_read_is_missed() {
    let battery = |n: u32, status: &str, power: &str| {
        let dir = format!("class/power_supply/BAT{n}");
        [("type", "Battery"), ("status", status), ("power_now", power)]
            .map(|(file, content)| (format!("{dir}/{file}"), content.to_owned()))
    };
    let usable = |status: &str| {
        let files = [battery(0, "Discharging", "15000000"), battery(1, status, "much")].concat();
        let files: Vec<(&str, &str)> =
            files.iter().map(|(path, content)| (&path[..], &content[..])).collect();
        Tree::new(&files).meter().unusable()
    };
    assert!(usable("Discharging").is_some_and(|reason| reason.contains("a part of the machine")));
    assert_eq!(usable("Not charging"), None);
    // One that rests may show nothing at all.
    let files = [battery(0, "Discharging", "15000000"), battery(1, "Full", "")].concat();
    let files = files.iter().filter(|(path, _)| !path.ends_with("BAT1/power_now"));
    let files: Vec<(&str, &str)> = files.map(|(path, content)| (&path[..], &content[..])).collect();
    assert_eq!(Tree::new(&files).meter().unusable(), None);
}

#[test]
fn joules_and_seconds_are_of_the_same_time() {
    let tree = Tree::new(&[
        ("class/power_supply/BAT0/type", "Battery\n"),
        ("class/power_supply/BAT0/status", "Discharging\n"),
        ("class/power_supply/BAT0/power_now", "6000000\n"),
    ]);
    let windows = Windows { idle: SHORT.load, ..SHORT };
    let mut load = || {
        std::thread::sleep(POLL);
        Ok(())
    };
    let energy = measured(tree.meter().measure(windows, 1, &mut load).unwrap());
    let watts = [energy.gross_joules / energy.seconds, energy.idle_watts.unwrap()];
    assert!(watts.iter().all(|w| (w - 6.0).abs() < 0.06), "{watts:?}");
}

#[test]
fn a_meter_at_the_plug_goes_before_all_else() {
    let tree = package("5\n");
    let log = tree.path("log.csv");
    let now = Timestamp::now().as_second();
    let lines: String = (now - 5..now + 60).map(|t| format!("{t},30\n")).collect();
    fs::write(&log, lines).unwrap();
    let mut meter = Meter::open(tree.0.path(), Some(&log)).unwrap();
    let windows = Windows { load: POLL * 2, idle: POLL, as_needed: false };
    let load = &mut showing(&tree, ENERGY, &[1_000_000, 2_000_000, 3_000_000, 4_000_000]);
    let energy = measured(meter.measure(windows, 1, load).unwrap());
    assert_eq!(energy.domain, "plug");
    assert!((energy.gross_joules / energy.seconds - 30.0).abs() < 0.5, "{energy:?}");
    assert!(energy.net_joules.unwrap().abs() < 0.1);
    assert_eq!(energy.domains[0].domain, "package-0");
}

#[test]
fn a_meter_that_shows_nothing_is_no_measurement() {
    let tree = Tree::new(&[("log.csv", "")]);
    let log = tree.path("log.csv");
    let now = Timestamp::now().as_second();
    fs::write(&log, (now - 5..now + 60).map(|t| format!("{t},0\n")).collect::<String>()).unwrap();
    let mut meter = Meter::open(tree.0.path(), Some(&log)).unwrap();
    let load = &mut || {
        std::thread::sleep(POLL);
        Ok(())
    };
    assert!(reason(meter.measure(SHORT, 1, load).unwrap()).contains("shows 0 W"));
}

#[test]
fn zones_of_names_that_say_nothing_are_told_beside_the_first() {
    let energy = "class/powercap/arm-scmi:0/energy_uj";
    let tree = Tree::new(&[
        ("class/powercap/arm-scmi:0/name", "cluster0\n"),
        (energy, "5\n"),
        ("class/powercap/arm-scmi:1/name", "cluster1\n"),
        ("class/powercap/arm-scmi:1/energy_uj", "5\n"),
    ]);
    let mut load = showing(&tree, energy, &[1_000_000, 2_000_000, 3_000_000, 4_000_000]);
    let energy = measured(tree.meter().measure(SHORT, 1, &mut load).unwrap());
    assert!(
        energy.warnings.iter().any(|w| w.contains("Neither does it of 1 sensor beside it")),
        "{energy:?}"
    );
}

#[test]
fn a_machine_without_sensors_says_so() {
    let tree = Tree::new(&[]);
    let mut ran = false;
    let outcome = tree.meter().measure(SHORT, 1, &mut || {
        ran = true;
        Ok(())
    });
    assert!(reason(outcome.unwrap()).contains("no energy sensor"));
    assert!(!ran, "a load whose energy cannot be measured need not run");
}
