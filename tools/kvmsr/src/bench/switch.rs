// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The parameter of kvm-msr.ko that says what serves VMs created from now on.

use std::fs;

use crate::error::Error;
use crate::error::Result;

const ENABLE: &str = "/sys/module/kvm_msr/parameters/enable";

/// The parameter, for a moment; it is as it was once this is dropped.
#[derive(Debug)]
pub struct Switch {
    before: String,
}

impl Switch {
    /// Has C or the engine serve new VMs.
    pub fn to(engine: bool) -> Result<Self> {
        let before = fs::read_to_string(ENABLE).map_err(|error| {
            Error::Missing(format!(
                "kvm-msr.ko is not loaded, so that there is nothing to compare C with ({ENABLE}: \
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
