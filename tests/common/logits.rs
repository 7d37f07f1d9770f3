//! Reading expected logits, and how near to them logits must be.

use safetensors::SafeTensors;

pub fn f32s(tensors: &SafeTensors, name: &str) -> Option<Vec<f32>> {
    let view = tensors.tensor(name).ok()?;
    Some(view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

pub fn ids(tensors: &SafeTensors, name: &str) -> Option<Vec<u32>> {
    let view = tensors.tensor(name).ok()?;
    Some(view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect())
}

fn argmax(row: &[f32]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

/// Short texts agree to 1e-3; in long ones an activation that sits on a rounding tie may flip, so
/// those agree to 3 % relative RMS and in 95 % of the most likely tokens.
pub fn check(at: &str, found: &[f32], expected: &[f32], width: usize) {
    assert_eq!(found.len(), expected.len(), "{at}");
    let tokens = found.len() / width;
    let max = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    let square = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x * x)).sum::<f64>();
    let error = square(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let relative = (error / square(&mut expected.iter().copied())).sqrt();
    let rows = found.chunks(width).zip(expected.chunks(width));
    let same = rows.filter(|(a, b)| argmax(a) == argmax(b)).count();
    if tokens <= 16 {
        assert!(max <= 1e-3, "{at}: differs by {max}");
    }
    assert!(relative <= 0.03, "{at}: relative RMS {relative}");
    assert!(same * 100 >= tokens * 95, "{at}: {same} of {tokens} most likely tokens agree");
    println!("{at}: {tokens} tokens, max {max:e}, relative RMS {relative:e}, argmax {same}/{tokens}");
}
