// SPDX-License-Identifier: GPL-2.0

//! The MSRs that KVM knows, each declared once.
//!
//! [`table::REGISTERS`] declares the name, the vendor modules, the rules and the lists of every
//! MSR. The rest derives from it: the array for [`lookup()`], which is computed when the engine is
//! compiled, the rules that [`super::access`] applies, and the lists for user space.

/// Defines an enum without data from a list of variants and their names in C, and a macro
/// `$with_all`, which calls another macro with that list.
///
/// `kvm/` defines its tables with `$with_all`, so that a new variant is added in one place.
macro_rules! enum_of_c {
    (
        $(#[$attribute:meta])* $name:ident, $with_all:ident:
        $($variant:ident = $($c:ident).+,)*
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum $name {
            $(#[doc = concat!("`", stringify!($($c).+), "`")] $variant,)*
        }

        impl $name {
            /// All variants. The position of each is its number.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        // Only the module uses these, cargo's tests don't.
        #[allow(unused_macros)]
        macro_rules! $with_all {
            ($callback:ident) => {
                $callback! { $($variant = $($c).+,)* }
            };
        }
        #[allow(unused_imports)]
        pub(crate) use $with_all;
    };
}

mod feature;
mod field;
pub(crate) mod index;
mod listing;
mod lookup;
mod register;
mod rules;
mod table;
mod vendor;

// Only the module uses these, cargo's tests don't.
#[cfg(MODULE)]
pub(crate) use self::lookup::lookup_at;
#[allow(unused_imports)]
pub(crate) use self::{
    feature::with_features,
    field::with_fields,
    lookup::NR_LISTED, //
};
pub(crate) use self::{
    feature::{
        Feature,
        Pv, //
    },
    field::Field,
    listing::{
        Condition,
        FeatureMsr,
        Listed,
        Trace, //
    },
    lookup::{
        lookup,
        Location,
        REGISTERS, //
    },
    register::Register,
    rules::{
        Permission,
        PreCheck,
        Read,
        Write, //
    },
    table::FEATURE_MSRS,
    vendor::{
        Vendor,
        VendorSet, //
    },
};
