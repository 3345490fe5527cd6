/* SPDX-License-Identifier: GPL-2.0 */
/* What rust/bindings.rs is generated from. */

#include <linux/kvm_host.h>

#include "kvm_emulate.h"
#include "msr_engine.h"
#include "msrs.h"
#include "x86.h"

#include "glue.h"
