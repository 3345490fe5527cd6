// SPDX-License-Identifier: GPL-2.0

//! `/dev/kvm-msr`: what the engine can do beyond KVM's own interface.
//!
//! `rust/uapi/kvm-msr.h` has the ioctls and their structures.

mod batch;
mod info;
mod learn;
mod policy;
mod save_list;
mod stats;
mod watch;

use crate::{
    bindings,
    kvm::{
        self,
        user::Sized,
        FileId,
        Learning,
        Stats,
        VmRef,
        VmState, //
    },
    LocalModule,
};
use kernel::{
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    uaccess::UserPtr, //
};

/// The device's name in `/dev`.
const OPTIONS: MiscDeviceOptions = MiscDeviceOptions { name: c"kvm-msr" };

/// Registers the device.
///
/// # Errors
///
/// Those of `misc_register()`, e.g. `EEXIST` if there is such a device.
pub(crate) fn register() -> impl PinInit<MiscDeviceRegistration<DeviceFile>, Error> {
    MiscDeviceRegistration::register(OPTIONS)
}

/// An open file of the device.
#[pin_data]
pub(crate) struct DeviceFile {
    #[pin]
    attached: Mutex<Option<Attached>>,
}

/// The VM that a file is attached to, and what the file may do with it.
#[derive(Clone)]
struct Attached {
    state: Arc<VmState>,
    rights: u64,
    /// The file's identity among [`kvm::Claims`].
    file: FileId,
}

impl Attached {
    /// A reference to the VM, for the length of an ioctl.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the VM has ended.
    fn vm(&self) -> Result<VmRef> {
        self.state.vm()
    }
}

const RIGHTS: u64 = bindings::KMSR_RIGHT_OBSERVE as u64
    | bindings::KMSR_RIGHT_POLICY as u64
    | bindings::KMSR_RIGHT_STATE as u64;

impl DeviceFile {
    /// The file's VM, if the file has the right.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if the file is not attached, `EACCES` if it lacks the right.
    fn attached(&self, right: u32) -> Result<Attached> {
        let attached = self.attached.lock().clone().ok_or(ENOTCONN)?;

        if attached.rights & u64::from(right) == 0 {
            return Err(EACCES);
        }
        Ok(attached)
    }

    /// `KMSR_ATTACH`
    fn attach(&self, argp: UserPtr) -> Result {
        let arg = Sized::<bindings::kmsr_attach>::read(argp)?.value;

        if arg.rights == 0 || arg.rights & !RIGHTS != 0 {
            return Err(EINVAL);
        }
        let mut attached = self.attached.lock();

        if attached.is_some() {
            return Err(EALREADY);
        }
        let state = kvm::state_of_fd(arg.vm_fd)?;
        // The file does not move, so its address is its identity as long as it is open.
        let file = core::ptr::from_ref(self).addr();

        if arg.rights & u64::from(bindings::KMSR_RIGHT_POLICY) != 0 {
            let mut claims = state.claims.lock();

            if claims.policy_file.is_some() {
                return Err(EBUSY);
            }
            claims.policy_file = Some(file);
        }
        *attached = Some(Attached {
            state,
            rights: arg.rights,
            file,
        });
        Ok(())
    }
}

#[vtable]
impl MiscDevice for DeviceFile {
    type Ptr = Pin<KBox<Self>>;
    type OwnerModule = LocalModule;

    fn open(_: &File, _: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        KBox::pin_init(
            pin_init!(Self {
                attached <- new_mutex!(None, "DeviceFile::attached"),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn release(device: Self::Ptr, _: &File) {
        let attached = device.attached.lock().take();

        if let Some(attached) = attached {
            policy::close(&attached);
            watch::close::<Learning>(&attached);
            watch::close::<Stats>(&attached);
        }
    }

    fn ioctl(device: Pin<&Self>, _: &File, command: u32, arg: usize) -> Result<isize> {
        let device = device.get_ref();
        let argp = UserPtr::from_addr(arg);

        match command {
            bindings::KMSR_INFO_IOCTL => info::info(argp),
            bindings::KMSR_ATTACH_IOCTL => device.attach(argp),
            bindings::KMSR_SET_POLICY_IOCTL => {
                policy::set(&device.attached(bindings::KMSR_RIGHT_POLICY)?, argp)
            }
            bindings::KMSR_GET_POLICY_IOCTL => {
                policy::get(&device.attached(bindings::KMSR_RIGHT_OBSERVE)?, argp)
            }
            bindings::KMSR_LEARN_IOCTL => {
                learn::learn(&device.attached(bindings::KMSR_RIGHT_OBSERVE)?, argp)
            }
            bindings::KMSR_STATS_IOCTL => {
                stats::stats(&device.attached(bindings::KMSR_RIGHT_OBSERVE)?, argp)
            }
            bindings::KMSR_BATCH_IOCTL => {
                batch::batch(&device.attached(bindings::KMSR_RIGHT_STATE)?, argp)
            }
            bindings::KMSR_SAVE_LIST_IOCTL => {
                save_list::save_list(&device.attached(bindings::KMSR_RIGHT_OBSERVE)?, argp)
            }
            _ => Err(ENOTTY),
        }
        .map(|()| 0)
    }
}
