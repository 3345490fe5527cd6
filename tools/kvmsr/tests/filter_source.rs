// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Compilers accept the source that `kvmsr filter compile` generates.
//!
//! `tests/generated/guest_msrs.rs` is such source; `SNAPSHOTS=overwrite cargo test --test
//! filter_source` writes it again.

use std::io::Write;
use std::process::Command;
use std::process::Stdio;

use kvm_ioctls::VmFd;
use kvmsr::filter;
use kvmsr::filter::Filter;
use kvmsr::filter::Rules;

mod generated {
    include!("generated/guest_msrs.rs");
}

/// The compiler checks that `VmFd::set_msr_filter()` accepts it.
#[allow(dead_code)]
fn set(vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
    vm.set_msr_filter(generated::GUEST_MSRS_DEFAULT, &generated::GUEST_MSRS)
}

fn filter(rules: &str) -> Filter {
    let policy = Rules::from_text(rules).unwrap().policy().unwrap();

    filter::compile(&policy).unwrap()
}

#[test]
fn rust_is_rust() {
    let filter = filter(include_str!("data/filter/rules.txt"));

    snapbox::assert_data_eq!(
        filter::rust_source(&filter, "guest_msrs"),
        snapbox::file!["generated/guest_msrs.rs"].raw()
    );
    assert_eq!(generated::GUEST_MSRS.len(), filter.ranges.len());
    for (generated, range) in generated::GUEST_MSRS.iter().zip(&filter.ranges) {
        assert_eq!(generated.flags.bits(), range.flags.0);
        assert_eq!(generated.base, range.base.0);
        assert_eq!(generated.msr_count, range.nmsrs);
        assert_eq!(generated.bitmap, range.bitmap.0);
    }
}

#[test]
fn c_is_c() {
    for rules in [
        include_str!("data/filter/rules.txt"),
        include_str!("data/filter/deny.txt"),
        "default deny",
        "default allow",
        "default deny\nallow 0x50000000-0x50002fff",
    ] {
        let source = filter::c_source(&filter(rules), "guest_msrs");
        let mut cc = Command::new("cc")
            .args([
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsyntax-only",
                "-x",
                "c",
                "-",
            ])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cc, which links this test as well");

        cc.stdin
            .take()
            .unwrap()
            .write_all(source.as_bytes())
            .unwrap();
        let output = cc.wait_with_output().unwrap();

        assert!(
            output.status.success(),
            "{source}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
