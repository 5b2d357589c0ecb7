//! What is set for the whole swarm: `swarm settings` and `swarm setting`.

use super::http::{ApiError, ErrorKind};
use super::{Node, trust, view};
use crate::farm::Farm;
use crate::farm::event::Input;
use crate::farm::job::Series;
use crate::farm::settings::SwarmSetting;
use serde_json::{Value, json};

impl Node {
    /// Sets something for the whole swarm. Any member may.
    pub(super) fn set_for_all(&mut self, setting: SwarmSetting) -> Result<Value, ApiError> {
        self.turn(Input::Setting(setting));
        is_in_force(&self.farm, setting)?;
        Ok(settings(&self.farm))
    }
}

/// Refuses to say that a word counts which this machine could not write to the swarm's log.
fn is_in_force(farm: &Farm, setting: SwarmSetting) -> Result<(), ApiError> {
    let SwarmSetting::Series(series) = setting;
    let there = farm.roster().settings().series();
    if there == series {
        return Ok(());
    }
    let still = there.map_or("is not set".to_owned(), |there| format!("is {there}"));
    let why = trust::why_no_word(farm);
    Err(ApiError::new(ErrorKind::DataDir, format!("nothing is changed, and the swarm's series still {still}: {why}")))
}

/// All of them: `[{name, value, by, machines}]`, where `by` is who set it, or lifted it, and `machines` is how many of those
/// known here can do as it says.
pub(super) fn settings(farm: &Farm) -> Value {
    let settings = farm.roster().settings();
    let by = settings.series_by().map(|by| json!({"id": by.node.to_string(), "name": view::node_name(farm, by.node)}));
    json!([{
        "name": "series",
        "value": settings.series().map(|series| series.to_string()),
        "by": by,
        "machines": settings.series().map(|series| machines_with(farm, series)),
    }])
}

/// How many of the machines known here have a Blender of a series.
fn machines_with(farm: &Farm, series: Series) -> usize {
    let known = farm.roster().members().values().filter_map(|member| member.capability.as_ref());
    let renders = known.filter(|capability| capability.slots > 0);
    renders.filter(|capability| capability.renderers.iter().any(|renderer| renderer.series() == series)).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::farm::event::Now;
    use crate::farm::id::BootId;
    use crate::seal::Sealer;
    use crate::wire::tests::capability;

    #[test]
    fn a_setting_tells_who_made_it_and_how_many_can_follow_it() {
        let now = Now { mono: std::time::Duration::ZERO, wall_ms: 0 };
        let mut farm = Farm::new(Sealer::from_seed(&[7; 32]), BootId([1; 8]), [0; 32], Vec::new(), now);
        farm.handle(now, Input::Capability(Box::new(capability())), &mut rand::rng());
        let told = |farm: &Farm| {
            let told = settings(farm)[0].clone();
            (told["value"].clone(), told["by"]["name"].clone(), told["machines"].clone())
        };
        assert_eq!(told(&farm), (Value::Null, Value::Null, Value::Null));
        let name = capability().name;
        for (series, machines) in [("4.5", json!(1)), ("4.2", json!(0))] {
            let setting = SwarmSetting::Series(series.parse().ok());
            let error = is_in_force(&farm, setting).err().unwrap();
            assert!(error.message.starts_with("nothing is changed, and the swarm's series still is"), "{error}");
            farm.handle(now, Input::Setting(setting), &mut rand::rng());
            assert_eq!(is_in_force(&farm, setting), Ok(()));
            assert_eq!(told(&farm), (json!(series), json!(name), machines));
        }
        farm.handle(now, Input::Setting(SwarmSetting::Series(None)), &mut rand::rng());
        assert_eq!(told(&farm), (Value::Null, json!(name), Value::Null));
    }
}
