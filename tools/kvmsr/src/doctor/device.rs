// SPDX-License-Identifier: Apache-2.0 OR MIT

//! `/dev/kvm-msr`, the device of kvm-msr.ko.

use std::fs;
use std::io;
use std::path::Path;

use super::Check;
use super::Topic;
use super::Verdict;
use super::access;
use super::text_of;
use crate::device::DEVICE;
use crate::device::Device;
use crate::device::Error;
use crate::device::Info;

/// The device's numbers, e.g. `10:121`. A module that has the device has this file.
const NUMBERS: &str = "/sys/class/misc/kvm-msr/dev";

/// The device of the loaded module: who may use it, its version, and what it offers.
pub fn check() -> Check {
    of(Path::new(DEVICE), text_of(NUMBERS))
}

fn of(path: &Path, numbers: Option<String>) -> Check {
    let check =
        |verdict, found| Check::new(Topic::Engine, &path.display().to_string(), verdict, found);
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return check(Verdict::Lacking, "does not exist".to_owned()).advise(missing(numbers));
        }
        Err(error) => {
            return check(Verdict::Lacking, error.to_string()).advise("run this as root");
        }
    };
    let who = access::describe(&metadata);

    match Device::open_path(path).and_then(|device| device.info()) {
        Ok(info) => check(Verdict::Good, format!("{who}, {}", offer(&info))),
        Err(Error::Open { .. }) if !access::is_root() => {
            check(Verdict::Lacking, format!("{who}, can't be opened")).advise(
                "run kvmsr as root to set policies, learn, or access registers of a running VM",
            )
        }
        Err(error) => check(Verdict::Lacking, format!("{who}, {error}"))
            .advise("remove the file, and load kvm-msr.ko again; in a container, allow the device"),
    }
}

/// What to do if the module is loaded, and the device is missing.
fn missing(numbers: Option<String>) -> String {
    match numbers {
        Some(numbers) => format!(
            "mount devtmpfs on /dev, or create the device (mknod -m 600 {DEVICE} c {}); in a \
             container, add it (--device {DEVICE})",
            numbers.replace(':', " ")
        ),
        None => "this version of kvm-msr.ko has no device: load a newer one".to_owned(),
    }
}

fn offer(info: &Info) -> String {
    let features = info.feature_names();

    format!(
        "version {}: {}",
        info.version,
        if features.is_empty() {
            "nothing that this kvmsr knows".to_owned()
        } else {
            features.join(", ")
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_has_advice() {
        let advice = |numbers: Option<&str>| {
            let check = of(Path::new("/nonexistent"), numbers.map(str::to_owned));

            assert_eq!(check.verdict, Verdict::Lacking);
            check.advice.unwrap()
        };

        assert!(advice(Some("10:121")).contains("mknod -m 600 /dev/kvm-msr c 10 121"));
        assert!(advice(None).contains("a newer one"));
    }

    #[test]
    fn another_device_is_told_apart() {
        let check = of(Path::new("/dev/null"), None);

        assert_eq!(check.verdict, Verdict::Lacking);
        assert!(check.found.contains("not the device"), "{}", check.found);
    }

    #[test]
    fn an_offer_names_its_features() {
        let info = |features| Info {
            version: 1,
            features,
            actions: 0,
            max_rules: 0,
            max_learned: 0,
            nr_buckets: 0,
        };

        assert_eq!(offer(&info(0b1001)), "version 1: policy, batch");
        // One of a newer module.
        assert_eq!(
            offer(&info(1 << 63)),
            "version 1: nothing that this kvmsr knows"
        );
    }
}
