//! Power State Coordination Interface (Arm DEN 0022): starting cores and ending the machine, by calls to the firmware below us.

use crate::machine::{Conduit, Mpidr};
use smccc::psci::{self, error::Error};
use smccc::{Hvc, Smc};

/// Starts a core at physical address `entry`, MMU off, `context` in x0.
pub fn cpu_on(conduit: Conduit, core: Mpidr, entry: u64, context: u64) -> Result<(), Error> {
    match conduit {
        Conduit::Smc => psci::cpu_on::<Smc>(core.0, entry, context),
        Conduit::Hvc => psci::cpu_on::<Hvc>(core.0, entry, context),
    }
}

/// Turns the machine off; comes back only if that is refused.
pub fn system_off(conduit: Conduit) {
    let _ = match conduit {
        Conduit::Smc => psci::system_off::<Smc>(),
        Conduit::Hvc => psci::system_off::<Hvc>(),
    };
}
