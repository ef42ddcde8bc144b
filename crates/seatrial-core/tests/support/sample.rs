//! What the tests of drawn numbers share.
#![allow(dead_code)] // each test binary uses a part

/// Mean and variance of a sample.
pub fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / count;
    (mean, variance)
}

/// The largest distance between the empirical distribution function and the law's.
pub fn distance(values: &[f64], cdf: impl Fn(f64) -> f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let both = sorted.iter().zip(0u32..).map(|(value, below)| {
        let right = cdf(*value);
        let below = f64::from(below);
        (right - below / count).max((below + 1.0) / count - right)
    });
    both.fold(0.0, f64::max)
}

/// The distance that one sample in a thousand exceeds (Kolmogorov's asymptotic law).
pub fn critical(count: usize) -> f64 {
    1.949_475 / (count as f64).sqrt()
}
