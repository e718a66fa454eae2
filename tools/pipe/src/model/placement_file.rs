//! Placements as files: one `[[core]]` table for each core.
//!
//! ```toml
//! [[core]]
//! stages = ["ingress", "pre.0"]
//! cpu = 3        # optional
//! ```

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use toe_datapath::Placement;
use toe_datapath::pipeline::{CorePlan, StageId};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    core: Vec<Table>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    stages: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<u32>,
}

/// Reads a placement file.
pub fn read(path: &Path) -> Result<Placement> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a placement", path.display()))
}

fn parse(text: &str) -> Result<Placement> {
    let file: File = toml::from_str(text)?;
    whole(file.core.into_iter().map(|table| (table.cpu, table.stages)))
}

/// The text of a placement file.
pub fn write(placement: &Placement) -> String {
    let mut text = String::new();
    for core in placement.cores() {
        let stages: Vec<String> = core.stages.iter().map(|id| format!("\"{id}\"")).collect();
        text += &format!("[[core]]\nstages = [{}]\n", stages.join(", "));
        if let Some(cpu) = core.cpu {
            text += &format!("cpu = {cpu}\n");
        }
    }
    text
}

fn whole(cores: impl Iterator<Item = (Option<u32>, Vec<String>)>) -> Result<Placement> {
    let plan = |(cpu, stages): (Option<u32>, Vec<String>)| {
        let stages = stages.iter().map(|name| StageId::parse(name)).collect::<Result<_, _>>();
        stages.map(|stages| CorePlan { cpu, stages })
    };
    let plans = cores.map(plan).collect::<Result<_, _>>().map_err(|error| anyhow!("{error}"))?;
    Placement::new(plans).map_err(|error| anyhow!("{error}"))
}

/// In JSON: the names of the stages by core, or null.
pub mod as_names {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use toe_datapath::Placement;

    pub fn serialize<S: Serializer>(placement: &Option<Placement>, s: S) -> Result<S::Ok, S::Error> {
        let names = |p: &Placement| p.cores().iter().map(|c| c.stages.iter().map(ToString::to_string).collect()).collect();
        let names: Option<Vec<Vec<String>>> = placement.as_ref().map(names);
        names.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Placement>, D::Error> {
        let names = Option::<Vec<Vec<String>>>::deserialize(d)?;
        names.map(|cores| super::whole(cores.into_iter().map(|stages| (None, stages)))).transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut placement = Placement::auto(4);
        placement.bind(&[3, 5]);
        assert_eq!(parse(&write(&placement)).unwrap(), placement);
    }

    #[test]
    fn nonsense_is_named() {
        let error = |text: &str| format!("{:#}", parse(text).unwrap_err());
        assert!(error("[[core]]\nstages = [\"foo\"]").contains("there is no stage `foo`"));
        assert!(error("[[core]]\nstages = [\"ingress\"]").contains("is not placed"));
        assert!(error("[[core]]\nstages = []\nspeed = 1").contains("speed"));
    }
}
