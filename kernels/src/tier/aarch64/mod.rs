//! Kernels for aarch64.

use crate::kernel::New;
use crate::layout::Layout;
use crate::tier::Tier;

/// Every kernel for this architecture.
pub(crate) static KERNELS: &[(&dyn Layout, Tier, New)] = &[];
