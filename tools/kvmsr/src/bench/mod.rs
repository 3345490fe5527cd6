// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Measures MSR accesses and the ioctls for them on this host.

mod cost;
mod metric;
mod spread;
mod subject;
mod switch;

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

pub use metric::Metric;
pub use spread::Spread;
pub use subject::Server;

use crate::error::Error;
use crate::error::Result;
use crate::scratch;
use crate::snapshot::Host;
use crate::snapshot::SCHEMA;
use cost::Meter;
use subject::Subject;

/// Settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Number of samples per figure.
    pub samples: u32,
    /// Whether to measure both C and the engine. This switches the engine's parameter while a VM
    /// is created, which affects VMs that other programs create at that moment.
    pub both: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            samples: 31,
            both: false,
        }
    }
}

/// The results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    /// [`SCHEMA`]
    pub schema: u32,
    /// This machine.
    pub host: Host,
    /// Number of samples per figure.
    pub samples: u32,
    /// Whether the CPU's cycles could be counted.
    pub cycles: bool,
    /// One for each metric, and for each of C and the engine that was measured.
    pub figures: Vec<Figure>,
}

/// One of the [`Measurements`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// The metric.
    pub metric: Metric,
    /// What served the VM.
    pub by: Server,
    /// In nanoseconds.
    pub nanoseconds: Spread,
    /// In cycles of the CPU, including the kernel's and the guest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycles: Option<Spread>,
}

/// Measures. Calls `progress` with the number of finished figures and the number of all figures;
/// it returns whether to continue.
///
/// # Errors
///
/// [`Error::Missing`] if there is no KVM, or only one of C and the engine; [`Error::Kvm`] if an
/// ioctl fails; [`Error::Io`] if `progress` returns it.
pub fn measure(
    device: &Path,
    settings: Settings,
    progress: &mut dyn FnMut(usize, usize, Metric) -> bool,
) -> Result<Measurements> {
    let kvm = scratch::open(device)?;
    let mut subjects = if settings.both {
        Subject::both(&kvm)?
    } else {
        vec![Subject::new(&kvm)?]
    };
    let mut meter = Meter::new();
    let mut figures = Vec::new();

    for (done, &metric) in Metric::ALL.iter().enumerate() {
        if !progress(done, Metric::ALL.len(), metric) {
            return Err(Error::Io {
                what: "measure".to_owned(),
                source: std::io::ErrorKind::Interrupted.into(),
            });
        }
        figures.extend(measure_one(
            metric,
            &mut subjects,
            &mut meter,
            settings.samples,
        )?);
    }
    Ok(Measurements {
        schema: SCHEMA,
        host: Host::this(),
        samples: settings.samples,
        cycles: meter.has_cycles(),
        figures,
    })
}

/// The subjects are measured in turns, so that changes of the CPU's speed affect all alike.
fn measure_one(
    metric: Metric,
    subjects: &mut [Subject],
    meter: &mut Meter,
    samples: u32,
) -> Result<Vec<Figure>> {
    let mut taken: Vec<_> = Vec::with_capacity(subjects.len());

    for subject in subjects.iter_mut() {
        metric.prepare(subject)?;
        taken.push((metric.batch(subject, meter)?, Vec::new()));
    }
    for _ in 0..samples {
        for (subject, (batch, costs)) in subjects.iter_mut().zip(&mut taken) {
            costs.push(metric.sample(subject, meter, *batch)?);
        }
    }
    subjects
        .iter()
        .zip(taken)
        .map(|(subject, (_, costs))| {
            metric.clean_up(subject)?;
            Ok(Figure {
                metric,
                by: subject.server(),
                nanoseconds: Spread::of(costs.iter().map(|cost| cost.nanoseconds)),
                cycles: costs
                    .iter()
                    .map(|cost| cost.cycles)
                    .collect::<Option<Vec<_>>>()
                    .map(|cycles| Spread::of(cycles.into_iter())),
            })
        })
        .collect()
}
