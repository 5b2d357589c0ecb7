//! The world: network, disk, Blender, ffmpeg, HTTP.
pub mod http;
pub mod machine;
pub mod net;
pub mod render;
pub mod scene;
pub mod store;
pub mod video;
