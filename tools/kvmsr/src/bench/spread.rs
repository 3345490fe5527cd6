// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Summarises samples.

use serde::Deserialize;
use serde::Serialize;

/// Median and spread of samples. Interrupts only add time, so the mean would be misleading.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// Half of the samples are below.
    pub median: f64,
    /// A tenth of the samples is below.
    pub p10: f64,
    /// A tenth of the samples is above.
    pub p90: f64,
    /// Median of the distances from the median.
    pub mad: f64,
}

impl Spread {
    /// Summarises samples; all figures are 0 if there are none.
    pub fn of(samples: impl Iterator<Item = f64>) -> Self {
        let sorted = sorted(samples);
        let median = quantile(&sorted, 0.5);
        let distances = sorted.iter().map(|sample| (sample - median).abs());

        Spread {
            median,
            p10: quantile(&sorted, 0.1),
            p90: quantile(&sorted, 0.9),
            mad: quantile(&self::sorted(distances), 0.5),
        }
    }
}

fn sorted(samples: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.collect();

    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Interpolates between the two nearest samples.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let at = share * last as f64;
    let low = at.floor() as usize;
    let value = |at: usize| sorted.get(at.min(last)).copied().unwrap_or(0.0);

    value(low) + (value(low + 1) - value(low)) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let spread = Spread::of((0..=100).map(f64::from).rev());

        assert_eq!((spread.p10, spread.median, spread.p90), (10.0, 50.0, 90.0));
        assert_eq!(spread.mad, 25.0);
        assert_eq!(Spread::of([1.0, 2.0].into_iter()).median, 1.5);
        assert_eq!(Spread::of([7.0].into_iter()).p90, 7.0);
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
