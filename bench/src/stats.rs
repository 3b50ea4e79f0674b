//! Percentiles and medians. Nearest rank for percentiles; the mean of the middle two for the median of few values.

/// Latencies of one window, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    /// Takes the samples in any order.
    pub(crate) fn new(mut nanoseconds: Vec<u64>) -> Self {
        nanoseconds.sort_unstable();
        Self(nanoseconds)
    }

    /// The smallest sample that at least `percent` (0 to 100) of all samples do not exceed, in microseconds.
    /// Zero when there is no sample.
    pub(crate) fn percentile_us(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map_or(0.0, |ns| *ns as f64 / 1e3)
    }
}

/// The median of `values`, `None` when there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len().is_multiple_of(2) {
        values.get(middle - 1).map(|lower| (lower + upper) / 2.0)
    } else {
        Some(upper)
    }
}

/// A median with the smallest and largest value behind it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` when there is no value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        Some(Self {
            median: median(values.iter().copied())?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let latencies = Latencies::new((1..=100).rev().map(|us| us * 1000).collect());
        assert_eq!(latencies.percentile_us(50), 50.0);
        assert_eq!(latencies.percentile_us(95), 95.0);
        assert_eq!(latencies.percentile_us(100), 100.0);
        assert_eq!(Latencies::new(vec![7000]).percentile_us(50), 7.0);
        assert_eq!(Latencies::default().percentile_us(50), 0.0);
    }

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn spread_keeps_the_extremes() {
        assert_eq!(
            Spread::of([2.0, 9.0, 1.0]),
            Some(Spread {
                median: 2.0,
                min: 1.0,
                max: 9.0
            })
        );
    }
}
