//! What a job chooses or sets in its file beyond engine, samples and size: scene, camera, view layers, any property.
//!
//! The path of a property is read here alone, into steps that a renderer walks one by one: nothing that a person writes
//! is ever run as Python.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a datablock or a view layer, bytes: Blender's own limit from 5.0 on.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest path or value, bytes (guess).
pub const MAX_PROPERTY_BYTES: usize = 1024;
/// Most view layers, and most properties (guess).
pub const MAX_OVERRIDES: usize = 64;
/// Longest all texts together, bytes: the largest `Submit` has room for them (guess: a hundred times a usual one).
pub const MAX_ALL_BYTES: usize = 8 * 1024;

/// Whether Cycles denoises, of a scene: what decides which renderers can take a job.
pub const DENOISES: &str = "cycles.use_denoising";
/// Whether Cycles runs shaders in the Open Shading Language, of a scene.
pub const OSL: &str = "cycles.shading_system";

const SIZE: &str = "set it in Blender and save, since it changes the size of the frames";
const VIEWS: &str = "set it in Blender and save, since it changes which files a frame has";
/// Properties of a scene that a flag sets, or the machine that renders, and what to do instead: frames are checked by what
/// the job knows of them.
const RESERVED: [(&str, &str); 27] = [
    ("camera", "use --camera"),
    ("cycles.device", "use --device"),
    ("cycles.samples", "use --samples"),
    ("frame_current", "use --frames"),
    ("frame_end", "use --frames"),
    ("frame_start", "use --frames"),
    ("frame_step", "use --frames"),
    ("render.border_max_x", SIZE),
    ("render.border_max_y", SIZE),
    ("render.border_min_x", SIZE),
    ("render.border_min_y", SIZE),
    ("render.engine", "use --engine"),
    ("render.filepath", "use --output"),
    ("render.fps", "use --fps"),
    ("render.fps_base", "use --fps"),
    ("render.image_settings.file_format", "use --format"),
    ("render.image_settings.stereo_3d_format.display_mode", SIZE),
    ("render.image_settings.stereo_3d_format.use_squeezed_frame", SIZE),
    ("render.image_settings.views_format", VIEWS),
    ("render.resolution_percentage", "use --percent"),
    ("render.resolution_x", "use --resolution"),
    ("render.resolution_y", "use --resolution"),
    ("render.threads", "use `swarm daemon --threads` on each machine"),
    ("render.use_border", SIZE),
    ("render.use_crop_to_border", SIZE),
    ("render.use_multiview", VIEWS),
    ("render.views_format", VIEWS),
];

/// What is chosen and set in a file; what is empty leaves the file's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Name of the scene that is rendered, instead of the one that was open when the file was saved.
    pub scene: Option<String>,
    /// Name of the camera it is rendered through.
    pub camera: Option<String>,
    /// Names of the view layers that are rendered, and no others.
    pub view_layers: Vec<String>,
    /// Properties, set in this order.
    pub set: Vec<Property>,
}

/// A property and what it is set to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Property {
    /// Where it is in Blender's Python: `scene.cycles.max_bounces`, `bpy.data.objects["Cube"].hide_render`.
    pub path: String,
    /// A Python literal, `true`, `false`, or the name of a choice as it is.
    pub value: String,
}

/// Where the way to a property begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The scene that is rendered.
    Scene,
    /// All data of the file, `bpy.data`.
    Data,
}

/// One step on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// `.name`.
    Name(String),
    /// `["key"]`.
    Key(String),
    /// `[3]`; from the end if negative.
    Index(i32),
}

/// Why a text sets no property.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// There is no `=`, or nothing behind it.
    #[error("`{0}` sets nothing; write PATH=VALUE, such as scene.cycles.max_bounces=4")]
    NoValue(String),
    /// It begins elsewhere.
    #[error("`{0}` begins with neither `scene.` nor `bpy.data.`; write for example scene.cycles.max_bounces=4")]
    Root(String),
    /// What a path has no room for.
    #[error(
        "`{path}` makes no sense from `{rest}` on; a path is names after dots, [\"key\"] and [number], such as \
         bpy.data.objects[\"Cube\"].hide_render"
    )]
    Syntax {
        /// All of it.
        path: String,
        /// From where on.
        rest: String,
    },
    /// Something else sets it.
    #[error("{path} is not to be set like this; {instead}")]
    Reserved {
        /// The property.
        path: String,
        /// What to do.
        instead: &'static str,
    },
    /// More than is taken.
    #[error("a path and a value of more than {MAX_PROPERTY_BYTES} bytes are not taken; set this in the file")]
    TooLong,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path, self.value)
    }
}

impl FromStr for Property {
    type Err = PropertyError;

    /// `PATH=VALUE`; the first `=` behind the path parts them, so that a key may hold one.
    fn from_str(text: &str) -> Result<Self, PropertyError> {
        let text = text.trim();
        let (_, _, rest) = steps(text)?;
        let path = text[..text.len() - rest.len()].trim_end();
        let value = match rest.strip_prefix('=') {
            Some(value) => value.trim(),
            None if rest.is_empty() => "",
            None => return Err(PropertyError::Syntax { path: shown(text), rest: shown(rest) }),
        };
        if value.is_empty() {
            return Err(PropertyError::NoValue(shown(text)));
        }
        let property = Self { path: path.into(), value: value.into() };
        property.check()?;
        Ok(property)
    }
}

impl Property {
    /// Whether it is one that may be set.
    ///
    /// # Errors
    /// It is none, or set otherwise.
    pub fn check(&self) -> Result<(), PropertyError> {
        if !self.is_short() {
            return Err(PropertyError::TooLong);
        }
        let (root, steps) = self.steps()?;
        let reserved = of_scene(root, &steps).and_then(|(_, name)| RESERVED.iter().find(|(path, _)| *path == name));
        let instead = reserved.map(|(_, instead)| *instead).or(is_of_a_view(root, &steps).then_some(VIEWS));
        match instead {
            Some(instead) => Err(PropertyError::Reserved { path: shown(&self.path), instead }),
            None => Ok(()),
        }
    }

    fn is_short(&self) -> bool {
        self.path.len() <= MAX_PROPERTY_BYTES && self.value.len() <= MAX_PROPERTY_BYTES
    }

    /// Where the way to it begins, and its steps: at least one.
    ///
    /// # Errors
    /// It is no way to a property.
    pub fn steps(&self) -> Result<(Root, Vec<Step>), PropertyError> {
        let (root, steps, rest) = steps(&self.path)?;
        if !rest.is_empty() {
            return Err(PropertyError::Syntax { path: shown(&self.path), rest: shown(rest) });
        }
        Ok((root, steps))
    }
}

/// Whether it is of one of the views of a scene, as `render.views["left"].file_suffix` is.
fn is_of_a_view(root: Root, steps: &[Step]) -> bool {
    let steps = match (root, steps) {
        (Root::Scene, steps) => steps,
        (Root::Data, [Step::Name(scenes), Step::Key(_) | Step::Index(_), steps @ ..]) if scenes == "scenes" => steps,
        (Root::Data, _) => return false,
    };
    let is_views = |name: &str| matches!(name, "views" | "stereo_views");
    matches!(steps, [Step::Name(render), Step::Name(views), ..] if render == "render" && is_views(views))
}

/// A property of a scene: the name of that scene unless it is the one that is rendered, and the names that lead to it.
fn of_scene(root: Root, steps: &[Step]) -> Option<(Option<&str>, String)> {
    let (scene, steps) = match (root, steps) {
        (Root::Scene, steps) => (None, steps),
        (Root::Data, [Step::Name(scenes), Step::Key(scene), steps @ ..]) if scenes == "scenes" => {
            (Some(&**scene), steps)
        }
        (Root::Data, _) => return None,
    };
    let names = steps.iter().map(|step| match step {
        Step::Name(name) => Some(&**name),
        Step::Key(_) | Step::Index(_) => None,
    });
    Some((scene, names.collect::<Option<Vec<&str>>>()?.join(".")))
}

impl Overrides {
    /// Whether everyone takes it. What a path says is [`Property::check`]ed by whoever submits it: a later version may
    /// know others.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), &'static str> {
        let names = || self.scene.iter().chain(&self.camera).chain(&self.view_layers);
        let texts = names().chain(self.set.iter().flat_map(|property| [&property.path, &property.value]));
        let promises = [
            (self.view_layers.len() <= MAX_OVERRIDES, "it names too many view layers"),
            (self.set.len() <= MAX_OVERRIDES, "it sets too many properties"),
            (
                names().all(|name| (1..=MAX_NAME_BYTES).contains(&name.len())),
                "the name of its scene, camera or view layer cannot be one",
            ),
            (texts.map(String::len).sum::<usize>() <= MAX_ALL_BYTES, "what it sets is too long"),
            (self.set.iter().all(Property::is_short), "a property it sets is too long"),
        ];
        promises.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
    }

    /// What it comes to where `before` holds unless this says otherwise.
    pub fn over(self, before: &Self) -> Self {
        let kept = before.set.iter().filter(|old| self.set.iter().all(|new| new.path != old.path)).cloned();
        Self {
            set: kept.chain(self.set.iter().cloned()).collect(),
            scene: self.scene.or_else(|| before.scene.clone()),
            camera: self.camera.or_else(|| before.camera.clone()),
            view_layers: if self.view_layers.is_empty() { before.view_layers.clone() } else { self.view_layers },
        }
    }

    /// Whether a property of the scene that is rendered, which is called `scene`, is switched on or off; `None` if it is not
    /// set.
    pub fn switched(&self, scene: &str, name: &str) -> Option<bool> {
        let is_it = |property: &&Property| {
            let steps = property.steps().ok();
            let found = steps.as_ref().and_then(|(root, steps)| of_scene(*root, steps));
            found.is_some_and(|(of, found)| of.is_none_or(|of| of == scene) && found == name)
        };
        let last = self.set.iter().rfind(is_it)?;
        Some(!matches!(last.value.to_ascii_lowercase().as_str(), "false" | "0"))
    }
}

/// The start of a text, for a message.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Reads a path from the start of a text as far as it goes: its root, its steps, and what comes behind it.
fn steps(text: &str) -> Result<(Root, Vec<Step>, &str), PropertyError> {
    let roots = [(Root::Scene, "scene"), (Root::Data, "bpy.data")];
    let after_root = |(root, name): (Root, &str)| {
        text.strip_prefix(name).filter(|rest| rest.starts_with(['.', '['])).map(|rest| (root, rest))
    };
    let (root, mut rest) = roots.into_iter().find_map(after_root).ok_or_else(|| PropertyError::Root(shown(text)))?;
    let mut steps = Vec::new();
    while rest.starts_with(['.', '[']) {
        let (step, behind) =
            step(rest).ok_or_else(|| PropertyError::Syntax { path: shown(text), rest: shown(rest) })?;
        steps.push(step);
        rest = behind;
    }
    Ok((root, steps, rest.trim_start()))
}

/// One step, and what comes behind it. Names that begin with `_` are Python's own.
fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(name) = text.strip_prefix('.') {
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let (name, rest) = name.split_at(end);
        return name.starts_with(|c: char| c.is_ascii_alphabetic()).then(|| (Step::Name(name.into()), rest));
    }
    let inner = text.strip_prefix('[')?;
    let Some(quote) = inner.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let (number, rest) = inner.split_once(']')?;
        return Some((Step::Index(number.parse().ok()?), rest));
    };
    let mut key = String::new();
    let mut letters = inner.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => key.push(letters.next()?.1),
            letter if letter == quote => {
                let rest = inner[at + 1..].strip_prefix(']')?;
                return (!key.is_empty()).then_some((Step::Key(key), rest));
            }
            letter => key.push(letter),
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(text: &str) -> Step {
        Step::Name(text.into())
    }

    fn key(text: &str) -> Step {
        Step::Key(text.into())
    }

    #[test]
    fn a_property_is_a_path_of_names_keys_and_numbers_and_a_value() {
        #[track_caller]
        fn check(text: &str, root: Root, steps: &[Step], value: &str) {
            let property: Property = text.parse().unwrap();
            assert_eq!(property.steps().unwrap(), (root, steps.to_vec()));
            assert_eq!(property.value, value);
            assert_eq!(property.to_string().parse(), Ok(property));
        }
        check("scene.cycles.max_bounces=4", Root::Scene, &[name("cycles"), name("max_bounces")], "4");
        let cube = [name("objects"), key("Cube"), name("hide_render")];
        check(r#"bpy.data.objects["Cube"].hide_render = true "#, Root::Data, &cube, "true");
        check(r#"bpy.data.objects['Cube'].hide_render=True"#, Root::Data, &cube, "True");
        let odd = [name("objects"), key("a = \"b\" \\ ']ü"), name("location"), Step::Index(-1)];
        check(r#"bpy.data.objects["a = \"b\" \\ ']ü"].location[-1]=1.5"#, Root::Data, &odd, "1.5");
        check(r#"scene["a b"]="x = y""#, Root::Scene, &[key("a b")], r#""x = y""#);
        check("scene.view_layers[0].use==", Root::Scene, &[name("view_layers"), Step::Index(0), name("use")], "=");
    }

    #[test]
    fn what_is_no_property_is_an_error_that_says_where_it_ends() {
        let error = |text: &str| text.parse::<Property>().unwrap_err();
        let syntax = |path: &str, rest: &str| PropertyError::Syntax { path: path.into(), rest: rest.into() };
        assert_eq!(error(""), PropertyError::Root(String::new()));
        assert_eq!(error("scene=4"), PropertyError::Root("scene=4".into()));
        assert_eq!(error("scenes.x=4"), PropertyError::Root("scenes.x=4".into()));
        assert_eq!(error("bpy.context.scene.x=4"), PropertyError::Root("bpy.context.scene.x=4".into()));
        for text in ["scene.x", "scene.x=", "scene.x = "] {
            assert_eq!(error(text), PropertyError::NoValue(text.trim().into()));
        }
        assert_eq!(error("scene.x()=1"), syntax("scene.x()=1", "()=1"));
        assert_eq!(error("scene.x + 1=1"), syntax("scene.x + 1=1", "+ 1=1"));
        for rest in [
            ".=1",
            "..x=1",
            ".1=1",
            ".__class__=1",
            ".a.=1",
            "[1=1",
            "[x]=1",
            "[]=1",
            r#"["x=1"#,
            r#"["x"=1"#,
            r#"[""]=1"#,
        ] {
            let text = format!("scene{rest}");
            assert!(matches!(error(&text), PropertyError::Syntax { .. }), "{text}");
        }
        let error = error("scene.render.engine=CYCLES").to_string();
        assert_eq!(error, "scene.render.engine is not to be set like this; use --engine");
        let error = r#"bpy.data.scenes["A"].render.engine=CYCLES"#.parse::<Property>().unwrap_err();
        assert!(matches!(error, PropertyError::Reserved { instead: "use --engine", .. }));
        for of_a_view in [
            r#"scene.render.views["left"].file_suffix=_ref"#,
            "scene.render.views[0].use=False",
            r#"bpy.data.scenes["A"].render.stereo_views["left"].file_suffix=_ref"#,
        ] {
            let error = of_a_view.parse::<Property>().unwrap_err();
            assert!(matches!(error, PropertyError::Reserved { instead: VIEWS, .. }), "{of_a_view}");
        }
        let long = format!("scene.x={}", "1".repeat(MAX_PROPERTY_BYTES + 1));
        assert_eq!(long.parse::<Property>(), Err(PropertyError::TooLong));
    }

    #[test]
    fn of_what_is_set_twice_the_later_holds_and_the_rest_stays() {
        let set = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Property>>();
        let job = Overrides {
            scene: Some("A".into()),
            camera: Some("C".into()),
            set: set(&["scene.a=1", "scene.b=1"]),
            ..Overrides::default()
        };
        assert_eq!(Overrides::default().over(&job), job);
        let asked =
            Overrides { scene: Some("B".into()), set: set(&["scene.c=1", "scene.a=2"]), ..Overrides::default() };
        let both = asked.over(&job);
        assert_eq!((both.scene.as_deref(), both.camera.as_deref()), (Some("B"), Some("C")));
        assert_eq!(both.set, set(&["scene.b=1", "scene.c=1", "scene.a=2"]));
        assert_eq!(both.clone().over(&job), both);

        let denoising = |values: &[&str]| {
            let set = values
                .iter()
                .map(|value| Property { path: "scene.cycles.use_denoising".into(), value: (*value).into() });
            Overrides { set: set.collect(), ..Overrides::default() }.switched("A", DENOISES)
        };
        assert_eq!(denoising(&[]), None);
        assert_eq!((denoising(&["true", "False"]), denoising(&["0", "1"])), (Some(false), Some(true)));
        let set = set(&[r#"bpy.data.scenes["A"].cycles.use_denoising=false"#]);
        let of_a = Overrides { set, ..Overrides::default() };
        assert_eq!((of_a.switched("A", DENOISES), of_a.switched("B", DENOISES)), (Some(false), None));
    }

    #[test]
    fn more_than_a_job_may_set_is_not_taken() {
        let property = |path: &str| Property { path: path.into(), value: "1".into() };
        let taken = |change: &dyn Fn(&mut Overrides)| {
            let mut overrides = Overrides::default();
            change(&mut overrides);
            overrides.check()
        };
        assert_eq!(taken(&|_| {}), Ok(()));
        assert!(taken(&|of| of.scene = Some(String::new())).is_err());
        assert!(taken(&|of| of.camera = Some("x".repeat(MAX_NAME_BYTES + 1))).is_err());
        assert!(taken(&|of| of.view_layers = vec!["x".into(); MAX_OVERRIDES + 1]).is_err());
        assert!(taken(&|of| of.set = vec![property("scene.x"); MAX_OVERRIDES + 1]).is_err());
        assert_eq!(taken(&|of| of.set = vec![property("of a later version")]), Ok(()));
        assert!(taken(&|of| of.set = vec![property(&"x".repeat(MAX_PROPERTY_BYTES + 1))]).is_err());
        let long = property(&format!("scene.{}", "x".repeat(MAX_PROPERTY_BYTES - 6)));
        assert_eq!(taken(&|of| of.set = vec![long.clone(); 7]), Ok(()));
        assert!(taken(&|of| of.set = vec![long.clone(); 8]).is_err());
    }

    #[test]
    fn no_text_makes_a_reader_of_properties_panic() {
        let seeds = ["scene.cycles.max_bounces=4", r#"bpy.data.objects["C\"ü"].location[-1] = (1, 2)"#, "scene['x']=y"];
        crate::fuzz::fuzz(
            "property",
            crate::fuzz::ROUNDS,
            seeds.map(|text| text.as_bytes().to_vec()).into(),
            |bytes| {
                let text = String::from_utf8_lossy(bytes);
                let read = text.parse::<Property>();
                assert!(read.as_ref().is_ok_and(|property| property.check().is_ok()) || read.is_err());
                read.map(drop).map_err(|error| std::mem::discriminant(&error))
            },
        );
    }
}
