//! The control plane, as far as it takes to set a card up and to read its traces.

use super::rig::Why;
use toe_abi::control::{COMPLETIONS_OFF, CONTROL_ENTRIES, CONTROL_MSG_LEN, ControlMsg, SUBMISSIONS_OFF, status};
use toe_abi::desc::{phase, slot};
use toe_abi::{HostAddr, RegionId};
use toe_hal::HostMemory;
use toe_virt::window::WindowMemory;
use zerocopy::{FromBytes, IntoBytes};

/// Rounds of the card in which it must have answered.
const PATIENCE: usize = 100;
const PHASE: u64 = CONTROL_MSG_LEN as u64 - 4;

/// Both control queues.
pub struct ControlPlane {
    memory: WindowMemory,
    submitted: u32,
    completed: u32,
}

impl ControlPlane {
    pub fn new(memory: WindowMemory) -> Self {
        Self { memory, submitted: 0, completed: 0 }
    }

    /// Sends a request and runs the card by `round` until it is answered.
    pub fn ask(&mut self, mut msg: ControlMsg, mut round: impl FnMut()) -> Result<ControlMsg, Why> {
        msg.tag = self.submitted.wrapping_add(1);
        self.submit(&msg)?;
        for _ in 0..PATIENCE {
            round();
            let Some(answer) = self.completion()? else { continue };
            if answer.tag == msg.tag {
                return if answer.status == status::OK { Ok(answer) } else { Err(Why::Refused(msg.kind, answer.status)) };
            }
        }
        Err(Why::Silent(msg.kind))
    }

    fn submit(&mut self, msg: &ControlMsg) -> Result<(), Why> {
        let place = Self::place(SUBMISSIONS_OFF, self.submitted);
        let _ = self.memory.write(place, &msg.as_bytes()[..PHASE as usize], 0)?;
        self.memory.store(place.add(PHASE), phase(self.submitted, CONTROL_ENTRIES))?;
        self.submitted = self.submitted.wrapping_add(1);
        Ok(())
    }

    fn completion(&mut self) -> Result<Option<ControlMsg>, Why> {
        let place = Self::place(COMPLETIONS_OFF, self.completed);
        if self.memory.load(place.add(PHASE))? != phase(self.completed, CONTROL_ENTRIES) {
            return Ok(None);
        }
        let mut bytes = [0; CONTROL_MSG_LEN];
        let _ = self.memory.fetch(place, &mut bytes, 0)?;
        self.completed = self.completed.wrapping_add(1);
        // Completions consumed: the second word of the host's line of the context page.
        self.memory.store(HostAddr::new(RegionId::CONTROL, 4), self.completed)?;
        Ok(ControlMsg::read_from_bytes(&bytes).ok())
    }

    fn place(queue: u64, index: u32) -> HostAddr {
        let offset = u64::from(slot(index, CONTROL_ENTRIES)) * CONTROL_MSG_LEN as u64;
        HostAddr::new(RegionId::CONTROL, queue + offset)
    }
}
