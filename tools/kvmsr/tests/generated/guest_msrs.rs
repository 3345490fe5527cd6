// Made by 'kvmsr filter compile'. Set it by
// vm.set_msr_filter(GUEST_MSRS_DEFAULT, &GUEST_MSRS)?;
use kvm_ioctls::MsrFilterDefaultAction;
use kvm_ioctls::MsrFilterRange;
use kvm_ioctls::MsrFilterRangeFlags;

/// What becomes of accesses that no range matches.
pub const GUEST_MSRS_DEFAULT: MsrFilterDefaultAction = MsrFilterDefaultAction::DENY;

/// The first range that matches an access decides.
#[rustfmt::skip]
pub const GUEST_MSRS: [MsrFilterRange<'static>; 3] = [
    // read 0x50000020-0x5000002f
    MsrFilterRange {
        flags: MsrFilterRangeFlags::READ,
        base: 0x50000020,
        msr_count: 16,
        bitmap: &[
            0xfb, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ],
    },
    // write 0x60000000
    MsrFilterRange {
        flags: MsrFilterRangeFlags::WRITE,
        base: 0x60000000,
        msr_count: 1,
        bitmap: &[
            0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        ],
    },
    // read write 0x50000000-0x50000010
    MsrFilterRange {
        flags: MsrFilterRangeFlags::READ.union(MsrFilterRangeFlags::WRITE),
        base: 0x50000000,
        msr_count: 17,
        bitmap: &[
            0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
        ],
    },
];
