//! Which release series of Blender renders a job, and which renderer of it.
//!
//! Series differ in pixels, so a job has one. It is the one that is asked for, else the one that is set for the whole swarm,
//! else the one that saved the file where there is one, else the nearest newer, which reads every older file; an older one
//! only where the file itself says that it may. Opening a file it forbids crashes Blender, so that is never tried, whoever
//! wants it. Pure: no Blender is asked here.

use super::Renderer;
use super::error::INSTALL_EGL;
use crate::farm::ability::{Abilities, Ability};
use crate::farm::job::{Device, Series};
use std::collections::BTreeSet;

/// What some node offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Available {
    /// Its series.
    pub series: Series,
    /// What it has of that which not all have.
    pub abilities: Abilities,
}

impl From<&Renderer> for Available {
    fn from(renderer: &Renderer) -> Self {
        Self { series: renderer.series, abilities: renderer.abilities }
    }
}

/// A series that is not chosen by the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// Asked for with the job.
    Asked(Series),
    /// That of the job whose frames are updated.
    Job(Series),
    /// Set for the whole swarm.
    Setting(Series),
}

impl Pinned {
    /// Which.
    pub fn series(self) -> Series {
        let (Self::Asked(series) | Self::Job(series) | Self::Setting(series)) = self;
        series
    }

    /// Why it is that one, for people.
    fn why(self) -> &'static str {
        match self {
            Self::Asked(_) => "was asked for",
            Self::Job(_) => "is the job's",
            Self::Setting(_) => "is the swarm's setting",
        }
    }

    /// How to have another.
    fn way_out(self) -> &'static str {
        match self {
            Self::Asked(_) => "leave out --series",
            Self::Job(_) => "submit the file as a new job",
            Self::Setting(_) => "choose another with --series, or change the setting with `swarm setting series`",
        }
    }
}

/// Why no series can render a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesError {
    /// Nobody has a Blender.
    #[error(
        "no Blender was found to render with; install one (scripts/setup does), or name one with --blender PATH, \
         then see `swarm doctor`"
    )]
    NoBlender,
    /// Blenders are there, and none of them may open the file.
    #[error(
        "the file was saved by Blender {file} and needs {least} or newer, and there is only {there}; install \
         Blender {}, or save the file from an older one", file.max(least)
    )]
    TooOld {
        /// Series that saved the file.
        file: Series,
        /// Least series the file allows.
        least: Series,
        /// What there is, for people.
        there: String,
    },
    /// The pinned series is not there.
    #[error(
        "Blender {} {} and there is only {there}; install Blender {}, or {}",
        wanted.series(), wanted.why(), wanted.series(), wanted.way_out()
    )]
    NotThere {
        /// Which.
        wanted: Pinned,
        /// What there is, for people.
        there: String,
    },
    /// The pinned series may not open the file.
    #[error(
        "Blender {} {} and the file, which was saved by Blender {file}, needs {least} or newer; {}",
        wanted.series(), wanted.why(), wanted.way_out()
    )]
    PinnedTooOld {
        /// Which.
        wanted: Pinned,
        /// Least series the file allows.
        least: Series,
        /// Series that saved the file.
        file: Series,
    },
    /// Only Blenders that lack what the scene needs.
    #[error(
        "the scene {}, and every Blender that could render it ({there}) {}; {}",
        joined(needs, Ability::needing),
        joined(needs, Ability::lacking),
        way_out(needs)
    )]
    Lacking {
        /// What, first what none of them has.
        needs: Vec<Ability>,
        /// What there is, for people.
        there: String,
    },
}

/// How a scene that needs something is rendered where nothing has it.
fn way_out(needs: &[Ability]) -> &'static str {
    match needs {
        [Ability::Denoiser] => "install one from blender.org or the bpy package, or switch denoising off in the scene",
        [Ability::OpenGl] => INSTALL_EGL,
        _ => "install one from blender.org or the bpy package",
    }
}

fn joined(abilities: &[Ability], words: fn(Ability) -> &'static str) -> String {
    abilities.iter().map(|ability| words(*ability)).collect::<Vec<_>>().join(" and ")
}

/// The series a file's least version belongs to; a series reads what its least version names from its first release on.
fn least_series(min_version: u32) -> Series {
    let version = (min_version / 100).min(u32::from(u16::MAX)) as u16;
    Series { major: version / 100, minor: version % 100 }
}

fn listed(series: impl Iterator<Item = Series>) -> String {
    let set: BTreeSet<Series> = series.collect();
    set.iter().map(Series::to_string).collect::<Vec<_>>().join(", ")
}

/// What of `needs` all of these lack; where there is nothing like that, what any of them lacks.
fn lacking(needs: Abilities, of: &[Available]) -> Vec<Ability> {
    let lacks = |ability: Ability| move |a: &Available| !a.abilities.has(ability);
    let by_all: Vec<Ability> = needs.iter().filter(|ability| of.iter().all(lacks(*ability))).collect();
    if by_all.is_empty() { needs.iter().filter(|ability| of.iter().any(lacks(*ability))).collect() } else { by_all }
}

/// Chooses the series for a file saved by `file` that may be opened by `min_version` (`version * 100 + subversion`, as
/// stored; 0 if unknown) and newer. With it comes a warning for the person, if the pixels may differ from what they saw.
pub fn choose_series(
    file: Series,
    min_version: u32,
    needs: Abilities,
    available: &[Available],
    pinned: Option<Pinned>,
) -> Result<(Series, Option<String>), SeriesError> {
    if available.is_empty() {
        return Err(SeriesError::NoBlender);
    }
    let least = least_series(min_version);
    let there = || listed(available.iter().map(|a| a.series));
    let mut usable: Vec<Available> = available.iter().copied().filter(|a| a.series >= least).collect();
    if let Some(wanted) = pinned {
        let series = wanted.series();
        if series < least {
            return Err(SeriesError::PinnedTooOld { wanted, least, file });
        }
        usable.retain(|a| a.series == series);
        if usable.is_empty() {
            return Err(SeriesError::NotThere { wanted, there: there() });
        }
    }
    if usable.is_empty() {
        return Err(SeriesError::TooOld { file, least, there: there() });
    }
    let able: BTreeSet<Series> = usable.iter().filter(|a| a.abilities.cover(needs)).map(|a| a.series).collect();
    let newer = able.range(file..).next();
    let Some(&chosen) = newer.or_else(|| able.last()) else {
        let setting = matches!(pinned, Some(Pinned::Setting(_))).then_some(", the swarm's setting").unwrap_or_default();
        let there = listed(usable.iter().map(|a| a.series)) + setting;
        return Err(SeriesError::Lacking { needs: lacking(needs, &usable), there });
    };
    let warning = (chosen != file).then(|| {
        let why = if let Some(pinned) = pinned {
            match pinned {
                Pinned::Asked(_) => "as asked".to_string(),
                Pinned::Job(_) => "as the job is".to_string(),
                Pinned::Setting(_) => "the swarm's setting".to_string(),
            }
        } else if usable.iter().any(|a| a.series == file) {
            let of_file: Vec<Available> = usable.iter().copied().filter(|a| a.series == file).collect();
            format!("since every Blender {file} here {}", joined(&lacking(needs, &of_file), Ability::lacking))
        } else if file < least {
            format!("since a library of it needs {least} or newer")
        } else {
            format!("since there is no Blender {file}")
        };
        format!("the file was saved by Blender {file} and is rendered by {chosen}, {why}: pixels may differ")
    });
    Ok((chosen, warning))
}

/// The renderer of `series` to use for a job with these needs and least version: the newest release that meets both, of
/// those with a GPU if one is asked for or would be taken, and with the backend that is asked for by name.
pub fn choose_renderer(
    renderers: &[Renderer],
    series: Series,
    min_version: u32,
    needs: Abilities,
    device: Device,
) -> Option<&Renderer> {
    // Of equals the first found, which is the one a person named; `max_by_key` keeps the last.
    let fits = |r: &&Renderer| {
        r.series == series && r.abilities.cover(needs) && (r.file_version == 0 || r.file_version >= min_version)
    };
    let suits = |r: &&Renderer| device.of(r.backends()).is_some();
    let rank = |r: &&Renderer| (device.takes_gpu(r.backends()), r.version);
    renderers.iter().rev().filter(fits).filter(suits).max_by_key(rank)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn series(text: &str) -> Series {
        text.parse().unwrap()
    }

    fn with(list: &[(&str, bool)]) -> Vec<Available> {
        let abilities = |denoises| if denoises { Abilities::all() } else { Ability::Usd.into() };
        list.iter()
            .map(|&(text, denoises)| Available { series: series(text), abilities: abilities(denoises) })
            .collect()
    }

    const PLAIN: Abilities = Abilities::NONE;

    fn denoised() -> Abilities {
        Ability::Denoiser.into()
    }

    #[track_caller]
    fn check(file: &str, min: u32, needs: Abilities, there: &[(&str, bool)], pinned: Option<&str>, expected: &str) {
        let pinned = pinned.map(series).map(Pinned::Asked);
        let (chosen, warning) = choose_series(series(file), min, needs, &with(there), pinned).unwrap();
        assert_eq!(chosen.to_string(), expected);
        assert_eq!(warning.is_some(), chosen != series(file), "{warning:?}");
    }

    #[track_caller]
    fn check_error(file: &str, min: u32, needs: Abilities, there: &[(&str, bool)], pinned: Option<&str>) -> String {
        let pinned = pinned.map(series).map(Pinned::Asked);
        choose_series(series(file), min, needs, &with(there), pinned).unwrap_err().to_string()
    }

    const BOTH: &[(&str, bool)] = &[("4.5", true), ("3.4", false)];

    #[test]
    fn the_series_that_saved_the_file_is_taken_else_the_nearest_newer_else_an_older_the_file_allows() {
        check("3.4", 30000, PLAIN, BOTH, None, "3.4");
        check("4.5", 30613, PLAIN, BOTH, None, "4.5");
        check("2.79", 27000, PLAIN, BOTH, None, "3.4");
        check("3.5", 30000, PLAIN, BOTH, None, "4.5");
        check("4.1", 30613, PLAIN, BOTH, None, "4.5");
        check("5.2", 40585, PLAIN, BOTH, None, "4.5");
        check("3.6", 30000, PLAIN, &[("3.4", false), ("3.0", false)], None, "3.4");
    }

    #[test]
    fn a_series_the_file_forbids_is_never_taken() {
        let error = check_error("4.1", 30613, PLAIN, &[("3.4", false)], None);
        assert!(error.contains("4.1") && error.contains("3.6 or newer") && error.contains("only 3.4"), "{error}");
        let error = check_error("4.1", 30613, PLAIN, BOTH, Some("3.4"));
        assert!(error.contains("3.4 was asked for") && error.contains("needs 3.6"), "{error}");
    }

    #[test]
    fn a_pinned_series_is_taken_or_missed_by_name() {
        check("3.4", 30000, PLAIN, BOTH, Some("4.5"), "4.5");
        check("3.6", 30000, PLAIN, BOTH, Some("3.4"), "3.4");
        let error = check_error("3.4", 30000, PLAIN, BOTH, Some("4.2"));
        assert!(error.contains("4.2") && error.contains("3.4, 4.5"), "{error}");
    }

    #[test]
    fn a_series_set_for_the_swarm_is_taken_or_missed_like_an_asked_one_and_says_whose_it_is() {
        let check = |file: &str, min, needs: Abilities, there: &[(&str, bool)], set: &str| {
            let set = Pinned::Setting(series(set));
            match choose_series(series(file), min, needs, &with(there), Some(set)) {
                Ok((chosen, warning)) => (chosen.to_string(), warning.unwrap_or_default()),
                Err(error) => (String::new(), error.to_string()),
            }
        };
        assert_eq!(check("3.4", 30000, PLAIN, BOTH, "3.4"), ("3.4".into(), String::new()));
        let (chosen, warning) = check("3.4", 30000, PLAIN, BOTH, "4.5");
        assert_eq!(chosen, "4.5");
        assert!(warning.contains("saved by Blender 3.4 and is rendered by 4.5, the swarm's setting"), "{warning}");
        let ways_out = "choose another with --series, or change the setting with `swarm setting series`";
        let (_, error) = check("4.1", 30613, PLAIN, BOTH, "3.4");
        let says =
            "Blender 3.4 is the swarm's setting and the file, which was saved by Blender 4.1, needs 3.6 or newer; ";
        assert_eq!(error, format!("{says}{ways_out}"));
        let (_, error) = check("3.4", 30000, PLAIN, BOTH, "4.2");
        let says = "Blender 4.2 is the swarm's setting and there is only 3.4, 4.5; install Blender 4.2, or ";
        assert_eq!(error, format!("{says}{ways_out}"));
        let job = choose_series(series("4.1"), 30613, PLAIN, &with(BOTH), Some(Pinned::Job(series("3.4"))));
        assert!(
            job.is_err_and(|error| error.to_string().ends_with("needs 3.6 or newer; submit the file as a new job"))
        );
        let (_, error) = check("3.4", 30000, denoised(), BOTH, "3.4");
        assert!(error.contains("(3.4, the swarm's setting) was built without the denoiser"), "{error}");
    }

    #[test]
    fn a_denoised_scene_goes_to_a_series_that_denoises_or_nowhere() {
        check("3.4", 30000, denoised(), BOTH, None, "4.5");
        check("4.5", 30000, denoised(), &[("4.5", false), ("4.5", true)], None, "4.5");
        let error = check_error("3.4", 30000, denoised(), &[("3.4", false)], None);
        assert!(error.contains("OpenImageDenoise"), "{error}");
        let error = check_error("3.4", 30000, denoised(), BOTH, Some("3.4"));
        assert!(error.contains("OpenImageDenoise"), "{error}");
    }

    #[test]
    fn a_job_is_rendered_by_the_newest_blender_that_has_the_backend_it_names() {
        use crate::node::render::{DeviceInfo, RendererKind};
        let of = |patch: u16, backends: &[&str]| Renderer {
            kind: RendererKind::Executable,
            path: "/b".into(),
            version: (4, 5, patch),
            series: series("4.5"),
            file_version: 0,
            build_hash: String::new(),
            colour_folders: Vec::new(),
            colours: String::new(),
            abilities: Abilities::all(),
            devices: backends
                .iter()
                .map(|backend| DeviceInfo {
                    backend: (*backend).into(),
                    name: "A4000".into(),
                    id: String::new(),
                    memory: None,
                })
                .collect(),
            sandbox: None,
        };
        let all = [of(1, &["OPTIX", "CUDA", "CPU"]), of(2, &["CUDA", "CPU"]), of(3, &["CPU"])];
        let chosen = |device| choose_renderer(&all, series("4.5"), 0, PLAIN, device).map(|one| one.version.2);
        for (device, patch) in [
            (Device::Auto, Some(2)),
            (Device::Gpu, Some(2)),
            (Device::Cpu, Some(3)),
            (Device::Cuda, Some(2)),
            (Device::Optix, Some(1)),
            (Device::Hip, None),
            (Device::Metal, None),
        ] {
            assert_eq!(chosen(device), patch, "{device}");
        }
    }

    #[test]
    fn without_a_blender_the_error_says_so() {
        assert!(check_error("3.4", 0, PLAIN, &[], None).contains("no Blender was found"));
    }
}
