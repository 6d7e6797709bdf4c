//! Rounds of one measurement.

use std::fmt;
use std::time::Duration;

/// Durations of rounds.
#[derive(Debug, Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Adds a round.
    pub fn push(&mut self, round: Duration) {
        self.0.push(round);
    }

    /// The middle round.
    pub fn median(&self) -> Duration {
        self.quantile(50)
    }

    fn quantile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get((sorted.len().saturating_sub(1) * percent + 50) / 100).copied().unwrap_or_default()
    }

    /// How many times longer the median is than the other's.
    pub fn ratio(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (low, middle, high) = (ms(self.quantile(10)), ms(self.median()), ms(self.quantile(90)));
        write!(f, "{middle:8.2} ms  (p10 {low:.2}, p90 {high:.2}, {} rounds)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios_are_of_the_middle_round() {
        let of = |rounds: &[u64]| Sample(rounds.iter().map(|&ms| Duration::from_millis(ms)).collect());
        let one = of(&[9, 1, 2, 3, 100]);
        assert_eq!(one.median(), Duration::from_millis(3));
        assert!((one.ratio(&of(&[6])) - 0.5).abs() < 1e-9);
        assert_eq!(Sample::default().median(), Duration::ZERO);
    }
}
