//! The control plane, as far as a benchmark needs one: sends control messages and waits for their answers.

use std::sync::atomic::Ordering;

use anyhow::{Result, anyhow, bail};
use toe_abi::control::{COMPLETIONS_OFF, CONTROL_ENTRIES, CONTROL_MSG_LEN, ControlMsg, SUBMISSIONS_OFF, kind, status};
use toe_abi::desc::{phase, slot};
use toe_abi::observe::{STAGES_PER_MSG, StageRecord};
use toe_abi::{HostAddr, RegionId};
use toe_hal::DmaFault;
use zerocopy::{FromBytes, IntoBytes};

use crate::board::Memory;

/// Rounds of the card in which it must have answered.
const PATIENCE: usize = 100_000;
const PHASE: u64 = CONTROL_MSG_LEN as u64 - 4;

/// Both control queues.
pub struct ControlPlane {
    memory: Memory,
    submitted: u32,
    completed: u32,
}

impl ControlPlane {
    pub fn new(memory: Memory) -> Self {
        Self { memory, submitted: 0, completed: 0 }
    }

    /// Sends a request and runs the card by `round` until it is answered with OK.
    pub fn ask(&mut self, mut msg: ControlMsg, mut round: impl FnMut()) -> Result<ControlMsg> {
        msg.tag = self.submitted.wrapping_add(1);
        self.submit(&msg).map_err(no_region)?;
        for _ in 0..PATIENCE {
            round();
            let Some(answer) = self.completion().map_err(no_region)? else { continue };
            if answer.tag != msg.tag {
                continue;
            }
            if answer.status != status::OK {
                bail!("the card answers control message {} with status {}", msg.kind, answer.status);
            }
            return Ok(answer);
        }
        bail!("the card does not answer control message {}", msg.kind);
    }

    /// A request that has only arguments.
    pub fn ask_args(&mut self, kind: u32, args: [u64; 5], round: impl FnMut()) -> Result<ControlMsg> {
        self.ask(ControlMsg { args, ..ControlMsg::new(kind, 0) }, round)
    }

    /// All stage instances.
    pub fn stages(&mut self, mut round: impl FnMut()) -> Result<Vec<StageRecord>> {
        let mut records = Vec::new();
        loop {
            let answer = self.ask_args(kind::STAGES, [records.len() as u64, 0, 0, 0, 0], &mut round)?;
            let all = answer.args[0] as usize;
            let left = all.saturating_sub(records.len());
            records.extend(answer.records::<StageRecord>(left.min(STAGES_PER_MSG)));
            if records.len() >= all {
                return Ok(records);
            }
        }
    }

    fn submit(&mut self, msg: &ControlMsg) -> Result<(), DmaFault> {
        let place = Self::place(SUBMISSIONS_OFF, self.submitted);
        self.memory.put(place, &msg.as_bytes()[..PHASE as usize])?;
        self.memory.word(place.add(PHASE))?.store(phase(self.submitted, CONTROL_ENTRIES), Ordering::Release);
        self.submitted = self.submitted.wrapping_add(1);
        Ok(())
    }

    fn completion(&mut self) -> Result<Option<ControlMsg>, DmaFault> {
        let place = Self::place(COMPLETIONS_OFF, self.completed);
        if self.memory.word(place.add(PHASE))?.load(Ordering::Acquire) != phase(self.completed, CONTROL_ENTRIES) {
            return Ok(None);
        }
        let mut bytes = [0; CONTROL_MSG_LEN];
        self.memory.get(place, &mut bytes)?;
        self.completed = self.completed.wrapping_add(1);
        // Completions consumed: the second word of the host's line of the context page.
        self.memory.word(HostAddr::new(RegionId::CONTROL, 4))?.store(self.completed, Ordering::Release);
        Ok(ControlMsg::read_from_bytes(&bytes).ok())
    }

    fn place(queue: u64, index: u32) -> HostAddr {
        let offset = u64::from(slot(index, CONTROL_ENTRIES)) * CONTROL_MSG_LEN as u64;
        HostAddr::new(RegionId::CONTROL, queue + offset)
    }
}

fn no_region(_: DmaFault) -> anyhow::Error {
    anyhow!("the control region is not bound")
}
