// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The parameter of kvm-msr.ko that decides whether it serves new VMs.

use std::fs;

use crate::error::Error;
use crate::error::Result;

const ENABLE: &str = "/sys/module/kvm_msr/parameters/enable";

/// Changes the parameter, and restores it when this is dropped.
#[derive(Debug)]
pub struct Switch {
    before: String,
}

impl Switch {
    /// Selects C or the engine for new VMs.
    pub fn to(engine: bool) -> Result<Self> {
        let before = fs::read_to_string(ENABLE).map_err(|error| {
            Error::Missing(format!(
                "kvm-msr.ko is not loaded, so C can't be compared with it ({ENABLE}: \
                 {error})"
            ))
        })?;
        let switch = Switch {
            before: before.trim().to_owned(),
        };

        fs::write(ENABLE, if engine { "Y" } else { "N" }).map_err(|error| {
            Error::Missing(format!(
                "{ENABLE} can't be written ({error}): run this as root, or without --both"
            ))
        })?;
        Ok(switch)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = fs::write(ENABLE, &self.before);
    }
}
