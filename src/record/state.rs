//! How rounds are told apart that met a machine in different states, and which of their runs count.

/// The quantile over the rounds at which their fastest runs are compared.
pub const FASTEST: f64 = 0.9;

/// Greatest over least speed of hand-overs between threads in rounds that count as of one state of the
/// machine. It is four times the scatter within a state, which is a tenth where the lines of one cache live at
/// different distances, and a fraction of the way between two.
pub const ONE_STATE: f64 = 1.45;

/// Fewest rounds of one state that two runs are held against each other by.
pub const ENOUGH_ROUNDS: usize = 5;

/// The rounds before and after which threads handed each other data at a speed from `low` to [`ONE_STATE`]
/// times that.
pub fn of_state(handoff: &[Option<[f64; 2]>], low: f64) -> Vec<usize> {
    let inside = |v: &f64| (low..=low * ONE_STATE).contains(v);
    (0..handoff.len()).filter(|&i| handoff[i].is_some_and(|pair| pair.iter().all(inside))).collect()
}

/// Whether enough rounds are of the fastest state that the machine was in for two of them at least, in which most
/// runs will have met it; or there is nothing that tells states apart.
pub fn of_fastest_state(handoff: &[Option<[f64; 2]>]) -> bool {
    let mut slower: Vec<f64> = handoff.iter().flatten().map(|[before, after]| before.min(*after)).collect();
    slower.sort_by(|a, b| b.total_cmp(a));
    let Some(second) = slower.get(1) else { return true };
    slower.iter().filter(|rate| **rate * ONE_STATE >= *second).count() >= ENOUGH_ROUNDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_of_the_fastest_state_are_counted() {
        let [near, far] = [Some([28.0, 27.0]), Some([6.5, 6.0])];
        let moved = Some([28.0, 6.0]);
        assert!(of_fastest_state(&[None; 3]) && of_fastest_state(&[]));
        assert!(of_fastest_state(&[far; 5]) && of_fastest_state(&[near, far, near, near, moved, near, near]));
        // What was seen once is no state.
        assert!(of_fastest_state(&[far, far, far, far, far, near]));
        assert!(of_fastest_state(&[Some([42.0, 41.0]), near, near, near, near, near]));
        assert!(!of_fastest_state(&[far, far, far, far, near, near, far, near]));
        assert!(!of_fastest_state(&[near, near, near, near, moved, None]));
        assert_eq!(of_state(&[far, near, moved, near], 27.0), [1, 3]);
    }
}
