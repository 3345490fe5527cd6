/* SPDX-License-Identifier: GPL-2.0 */
/* What rust/bindings.rs is generated from. */

#include <linux/kvm_host.h>

#include <asm/pvclock-abi.h>
#include <asm/svm.h>

#include "hyperv.h"
#include "kvm_emulate.h"
#include "lapic.h"
#include "msr_engine.h"
#include "msrs.h"
#include "pmu.h"
#include "vmx/vmcs12.h"
#include "x86.h"
#include "xen.h"

#include "glue.h"
