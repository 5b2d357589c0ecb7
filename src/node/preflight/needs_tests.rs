//! What scenes that the Blenders of this machine made need of a renderer.
#![allow(clippy::unwrap_used)]

use super::tests::make;
use super::*;
use crate::farm::ability::{Abilities, Ability};
use crate::node::http::Reply;
use crate::node::render::{Renderer, discover};

/// A thing for each of what is needed.
const THINGS: &str = r#"
scene = bpy.context.scene
scene.render.engine, scene.cycles.shading_system, scene.cycles.use_denoising = "CYCLES", True, False
bpy.data.objects["Cube"].hide_render = True
def thing(name):
    bpy.ops.mesh.primitive_plane_add()
    bpy.context.object.name = name
    return bpy.context.object
def modified(name, kind):
    return thing(name).modifiers.new("Mod", kind)
def cached(name):
    bpy.ops.cachefile.open(filepath=os.path.join(os.path.dirname(args[0]), name))
    modified(name, "MESH_SEQUENCE_CACHE").cache_file = bpy.data.cache_files[-1]
modified("Smooth", "SUBSURF")
modified("Waves", "OCEAN")
modified("Domain", "FLUID").fluid_type = "DOMAIN"
cached("a.abc")
cached("b.USDC")
scene.collection.objects.link(bpy.data.objects.new("Cloud", bpy.data.volumes.new("Cloud")))
stone = thing("Stone")
bpy.ops.rigidbody.object_add()
material = bpy.data.materials.new("Stripes")
material.use_nodes = True
material.node_tree.nodes.new("ShaderNodeScript")
thing("Striped").data.materials.append(material)
if hasattr(scene, "compositing_node_group"):
    tree = scene.compositing_node_group = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
else:
    scene.use_nodes = True
    tree = scene.node_tree
node = tree.nodes.new("CompositorNodeDenoise")
"#;
/// Nothing of it is rendered.
const HIDDEN: &str = r#"
node.mute = True
for thing in scene.objects:
    thing.hide_render = thing.type != "CAMERA"
"#;

async fn looked(renderer: &Renderer, blend: &Path, script: &str) -> Looked {
    make(renderer, blend, script);
    let (told, _heard) = mpsc::channel(64);
    let request = SubmitRequest { file: blend.into(), allow_missing: true, ..SubmitRequest::default() };
    look(&request, &Stream::of(Reply::Stream(told)).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_scene_needs_what_takes_part_in_it_by_the_engine_that_renders_it() {
    let dir = tempfile::tempdir().unwrap();
    for renderer in discover(&[], &dir.path().join("cache.json")).await.renderers {
        let blend = dir.path().join("s.blend");
        let mut looked_at = looked(&renderer, &blend, THINGS).await;
        let by = |looked: &Looked, engine: Option<&str>| -> Vec<Ability> {
            let settings = RenderSettings { engine: engine.map(str::to_owned), ..RenderSettings::default() };
            looked.needs(&settings).iter().collect()
        };
        let without = |ability: &[Ability]| -> Vec<Ability> {
            Abilities::all().iter().filter(|one| *one != Ability::Audaspace && !ability.contains(one)).collect()
        };
        assert_eq!(by(&looked_at, None), without(&[Ability::OpenGl]), "Blender {}", renderer.version_text());
        assert_eq!(by(&looked_at, Some("BLENDER_EEVEE")), without(&[Ability::Osl]));
        looked_at.info.composites = false;
        assert_eq!(by(&looked_at, None), without(&[Ability::OpenGl, Ability::Denoiser]));
        looked_at.info.denoising = true;
        assert_eq!(by(&looked_at, None), without(&[Ability::OpenGl]));
        looked_at.info.osl = false;
        assert_eq!(by(&looked_at, None), without(&[Ability::OpenGl, Ability::Osl]));
        let hidden = looked(&renderer, &blend, &[THINGS, HIDDEN].concat()).await;
        assert_eq!(by(&hidden, None), [], "Blender {}", renderer.version_text());
    }
}
