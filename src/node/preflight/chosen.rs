//! Whether the file has what a submission chooses of it. The scene it chooses is found, or not, when it is read.

use super::Problem;
use crate::farm::overrides::Overrides;
use crate::node::http::ErrorKind;
use crate::node::scene::{SceneInfo, Survey, listed};

/// The camera and view layers that are chosen and not there. Of a library's cameras only a renderer can tell whether the
/// scene has them.
pub(super) fn not_there(overrides: &Overrides, info: &SceneInfo, survey: &Survey, subject: &str) -> Vec<Problem> {
    let problem = |message: String, there: &[String], none: &str| {
        let fix = if there.is_empty() { none.to_owned() } else { format!("choose among {}", listed(there)) };
        Problem::error(ErrorKind::NotInFile, subject, message, &fix).of(&info.scene)
    };
    let camera = overrides.camera.iter().filter(|camera| !survey.cameras.contains(camera)).map(|camera| {
        problem(format!("{subject} has no camera `{camera}`"), &survey.cameras, "add one in Blender and save the file")
    });
    let layers = overrides.view_layers.iter().filter(|layer| !info.view_layers.contains(layer)).map(|layer| {
        let message = format!("the scene `{}` in {subject} has no view layer `{layer}`", info.scene);
        problem(message, &info.view_layers, "leave --view-layer out")
    });
    camera.chain(layers).collect()
}
