//! A tiny .blend built by code, for tests without Blender.
