//! The world: network, disk, Blender, ffmpeg, HTTP.
pub mod http;
pub mod net;
pub mod render;
pub mod scene;
pub mod start;
pub mod store;
pub mod video;
