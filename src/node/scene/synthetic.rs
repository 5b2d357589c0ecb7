//! A tiny .blend built by code, for tests without Blender: just the structs and fields the readers ask for, in any
//! header, byte order and pointer width.

/// Kind of file to build.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// 64-bit pointers.
    pub wide: bool,
    /// Big-endian.
    pub big: bool,
    /// The header of Blender 5.
    pub long: bool,
}

pub const SHAPES: [Shape; 5] = [
    Shape { wide: true, big: false, long: false },
    Shape { wide: false, big: false, long: false },
    Shape { wide: true, big: true, long: false },
    Shape { wide: false, big: true, long: false },
    Shape { wide: true, big: false, long: true },
];

/// Struct, then type and name of its fields.
const STRUCTS: &[(&str, &[(&str, &str)])] = &[
    ("Raw", &[("int", "raw")]),
    ("ListBase", &[("void", "*first"), ("void", "*last")]),
    ("ID", &[("void", "*next"), ("char", "name[66]"), ("int", "us"), ("IDProperty", "*properties")]),
    ("IDPropertyData", &[("void", "*pointer"), ("ListBase", "group"), ("int", "val")]),
    (
        "IDProperty",
        &[
            ("void", "*next"),
            ("char", "type"),
            ("char", "name[64]"),
            ("IDPropertyData", "data"),
            ("int", "len"),
            ("int", "totallen"),
        ],
    ),
    ("PackedFile", &[("int", "size"), ("void", "*data")]),
    (
        "FileGlobal",
        &[("short", "subversion"), ("short", "minversion"), ("short", "minsubversion"), ("Scene", "*curscene")],
    ),
    ("rctf", &[("float", "xmin"), ("float", "xmax"), ("float", "ymin"), ("float", "ymax")]),
    ("ImageFormatData", &[("char", "imtype"), ("char", "depth")]),
    (
        "RenderData",
        &[
            ("ImageFormatData", "im_format"),
            ("int", "sfra"),
            ("int", "efra"),
            ("int", "frame_step"),
            ("short", "frs_sec"),
            ("float", "frs_sec_base"),
            ("int", "xsch"),
            ("int", "ysch"),
            ("short", "size"),
            ("int", "mode"),
            ("int", "scemode"),
            ("rctf", "border"),
            ("char", "engine[32]"),
            ("ListBase", "views"),
        ],
    ),
    (
        "Scene",
        &[
            ("ID", "id"),
            ("Object", "*camera"),
            ("Editing", "*ed"),
            ("ListBase", "base"),
            ("RenderData", "r"),
            ("ListBase", "view_layers"),
            ("RigidBodyWorld", "*rigidbody_world"),
            ("short", "flag"),
            ("int", "simulation_frame_start"),
        ],
    ),
    ("Base", &[("void", "*next"), ("Object", "*object"), ("short", "flag")]),
    ("ViewLayer", &[("void", "*next"), ("char", "name[64]"), ("ListBase", "object_bases")]),
    (
        "Object",
        &[
            ("ID", "id"),
            ("short", "type"),
            ("ID", "*data"),
            ("ID", "**mat"),
            ("void", "(*func)()"),
            ("ListBase", "modifiers"),
            ("SoftBody", "*soft"),
            ("RigidBodyOb", "*rigidbody_object"),
            ("short", "visibility_flag"),
            ("AnimData", "*adt"),
        ],
    ),
    ("AnimData", &[("bAction", "*action"), ("ListBase", "drivers"), ("ListBase", "nla_tracks")]),
    ("bAction", &[("ID", "id")]),
    ("NlaTrack", &[("void", "*next"), ("ListBase", "strips")]),
    ("NlaStrip", &[("void", "*next"), ("bAction", "*act")]),
    ("FCurve", &[("void", "*next"), ("ChannelDriver", "*driver"), ("short", "flag"), ("char", "*rna_path")]),
    ("ChannelDriver", &[("ListBase", "variables"), ("char", "expression[256]"), ("int", "type")]),
    ("DriverVar", &[("void", "*next"), ("char", "name[64]")]),
    ("Text", &[("ID", "id"), ("int", "flags")]),
    ("RigidBodyWorld", &[("Collection", "*group"), ("int", "flag"), ("RigidBodyWorld_Shared", "*shared")]),
    ("RigidBodyWorld_Shared", &[("PointCache", "*pointcache")]),
    ("RigidBodyOb", &[("short", "type")]),
    ("Collection", &[("ID", "id"), ("ListBase", "gobject")]),
    ("CollectionObject", &[("void", "*next"), ("Object", "*ob")]),
    ("ModifierData", &[("void", "*next"), ("int", "mode"), ("char", "name[64]")]),
    ("Library", &[("ID", "id"), ("char", "name[1024]"), ("PackedFile", "*packedfile")]),
    (
        "Image",
        &[
            ("ID", "id"),
            ("char", "name[1024]"),
            ("short", "source"),
            ("PackedFile", "*packedfile"),
            ("ListBase", "tiles"),
            ("ListBase", "views"),
        ],
    ),
    ("ImageView", &[("void", "*next"), ("char", "name[64]"), ("char", "filepath[1024]")]),
    ("SceneRenderView", &[("void", "*next"), ("char", "name[64]"), ("char", "suffix[64]")]),
    ("ImageTile", &[("void", "*next"), ("int", "tile_number")]),
    ("Editing", &[("ListBase", "seqbase")]),
    ("Sequence", &[("void", "*next"), ("int", "type"), ("int", "flag"), ("Strip", "*strip"), ("ListBase", "seqbase")]),
    ("Strip", &[("StripElem", "*stripdata"), ("char", "dir[768]")]),
    ("StripElem", &[("char", "name[256]")]),
    (
        "PointCache",
        &[
            ("int", "flag"),
            ("int", "index"),
            ("char", "name[64]"),
            ("char", "path[1024]"),
            ("int", "startframe"),
            ("int", "endframe"),
            ("int", "step"),
            ("ListBase", "mem_cache"),
        ],
    ),
    (
        "ParticleSystem",
        &[("PointCache", "*pointcache"), ("ParticleSettings", "*part"), ("char", "name[64]"), ("int", "flag")],
    ),
    ("ParticleSettings", &[("ID", "id"), ("short", "type"), ("short", "phystype")]),
    ("ParticleSystemModifierData", &[("ModifierData", "modifier"), ("ParticleSystem", "*psys")]),
    ("ClothModifierData", &[("ModifierData", "modifier"), ("PointCache", "*point_cache")]),
    ("SoftbodyModifierData", &[("ModifierData", "modifier")]),
    ("SoftBody", &[("SoftBody_Shared", "*shared")]),
    ("SoftBody_Shared", &[("PointCache", "*pointcache")]),
    ("FluidModifierData", &[("ModifierData", "modifier"), ("FluidDomainSettings", "*domain")]),
    (
        "FluidDomainSettings",
        &[
            ("int", "cache_flag"),
            ("char", "cache_directory[1024]"),
            ("short", "cache_type"),
            ("int", "cache_frame_start"),
        ],
    ),
    ("DynamicPaintModifierData", &[("ModifierData", "modifier"), ("DynamicPaintCanvasSettings", "*canvas")]),
    ("DynamicPaintCanvasSettings", &[("ListBase", "surfaces")]),
    (
        "DynamicPaintSurface",
        &[
            ("void", "*next"),
            ("PointCache", "*pointcache"),
            ("char", "name[64]"),
            ("int", "flags"),
            ("short", "format"),
        ],
    ),
    ("OceanModifierData", &[("char", "cachepath[1024]"), ("char", "cached")]),
    (
        "NodesModifierData",
        &[
            ("char", "*bake_directory"),
            ("ModifierData", "modifier"),
            ("bNodeTree", "*node_group"),
            ("NodesModifierSettings", "settings"),
            ("NodesModifierBake", "*bakes"),
        ],
    ),
    ("NodesModifierSettings", &[("IDProperty", "*properties")]),
    (
        "NodesModifierBake",
        &[("int", "flag"), ("char", "*directory"), ("void", "*packed"), ("int", "id"), ("int", "frame_start")],
    ),
    ("Camera", &[("ID", "id"), ("char", "type"), ("char", "custom_mode"), ("char", "custom_filepath[1024]")]),
    (
        "bNodeTree",
        &[("ID", "id"), ("ListBase", "nodes"), ("ListBase", "links"), ("bNestedNodeRef", "*nested_node_refs")],
    ),
    ("bNestedNodeRef", &[("int", "id"), ("bNestedNodePath", "path")]),
    ("bNestedNodePath", &[("int", "node_id"), ("int", "id_in_node")]),
    (
        "bNode",
        &[
            ("void", "*next"),
            ("char", "name[64]"),
            ("char", "idname[64]"),
            ("short", "type"),
            ("ListBase", "inputs"),
            ("void", "*storage"),
            ("int", "identifier"),
            ("ID", "*id"),
        ],
    ),
    ("bNodeSocket", &[("void", "*next"), ("char", "identifier[64]"), ("void", "*default_value")]),
    ("bNodeSocketValueString", &[("char", "value[1024]")]),
    (
        "bNodeLink",
        &[
            ("void", "*next"),
            ("bNode", "*fromnode"),
            ("bNodeSocket", "*fromsock"),
            ("bNodeSocket", "*tosock"),
            ("int", "flag"),
        ],
    ),
    ("NodeInputString", &[("char", "*string")]),
    ("CustomDataExternal", &[("char", "filename[1024]")]),
];

const NUMBERS: [(&str, usize); 5] = [("char", 1), ("short", 2), ("int", 4), ("float", 4), ("void", 0)];

/// What a field is set to.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Int(i64),
    Float(f32),
    Text(&'a [u8]),
    Address(u64),
}

/// A file being built.
pub struct Builder {
    shape: Shape,
    bytes: Vec<u8>,
}

impl Builder {
    pub fn new(shape: Shape) -> Self {
        let order = if shape.big { 'V' } else { 'v' };
        let width = if shape.wide { '-' } else { '_' };
        let header = if shape.long { format!("BLENDER17-01{order}0502") } else { format!("BLENDER{width}{order}305") };
        Self { shape, bytes: header.into_bytes() }
    }

    fn number(&self, value: u64, len: usize) -> Vec<u8> {
        let bytes = value.to_le_bytes();
        let mut bytes = bytes[..len].to_vec();
        if self.shape.big {
            bytes.reverse();
        }
        bytes
    }

    fn pointer_bytes(&self) -> usize {
        if self.shape.wide { 8 } else { 4 }
    }

    fn field_size(&self, kind: &str, name: &str) -> usize {
        if name.starts_with(['*', '(']) {
            return self.pointer_bytes();
        }
        let count = name.split_once('[').map_or(1, |(_, rest)| rest.trim_end_matches(']').parse().unwrap_or(1));
        count * self.size(kind)
    }

    fn size(&self, kind: &str) -> usize {
        let number = NUMBERS.iter().find(|(name, _)| *name == kind).map(|(_, size)| *size);
        let fields = STRUCTS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, fields)| fields);
        number.unwrap_or_else(|| fields.iter().map(|(kind, name)| self.field_size(kind, name)).sum())
    }

    /// Where a field is, and how long one element of it.
    fn place(&self, kind: &str, path: &str) -> (usize, usize) {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let (_, fields) = STRUCTS.iter().find(|(name, _)| *name == kind).unwrap_or_else(|| panic!("no struct {kind}"));
        let mut offset = 0;
        for (kind, name) in *fields {
            if name.trim_start_matches('*').split('[').next() == Some(first) {
                let (inner, size) = rest.map_or((0, self.size(kind)), |rest| self.place(kind, rest));
                return (offset + inner, size);
            }
            offset += self.field_size(kind, name);
        }
        panic!("{kind} has no {path}")
    }

    /// Adds a block of structs `kind`, one for each set of values.
    pub fn block(&mut self, code: &[u8; 4], address: u64, kind: &str, elements: &[&[(&str, Value<'_>)]]) {
        let size = self.size(kind);
        let mut data = vec![0; size * elements.len()];
        for (nth, values) in elements.iter().enumerate() {
            for (path, value) in *values {
                let (offset, len) = self.place(kind, path);
                let at = nth * size + offset;
                let bytes = match value {
                    Value::Int(n) => self.number(*n as u64, len),
                    Value::Float(x) => self.number(u64::from(x.to_bits()), 4),
                    Value::Text(text) => text.to_vec(),
                    Value::Address(address) => self.number(*address, self.pointer_bytes()),
                };
                data[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        let sdna = STRUCTS.iter().position(|(name, _)| *name == kind).unwrap_or(0);
        self.raw(code, address, sdna, elements.len(), &data);
    }

    /// Adds a block of addresses without a struct.
    pub fn addresses(&mut self, address: u64, targets: &[u64]) {
        let data: Vec<u8> = targets.iter().flat_map(|target| self.number(*target, self.pointer_bytes())).collect();
        self.raw(b"DATA", address, 0, 1, &data);
    }

    /// Adds a block that is a text, as Blender writes it: with its NUL, in fours.
    pub fn text(&mut self, address: u64, text: &[u8]) {
        let mut data = text.to_vec();
        data.resize((text.len() + 1).next_multiple_of(4), 0);
        self.raw(b"DATA", address, 0, 1, &data);
    }

    fn raw(&mut self, code: &[u8; 4], address: u64, sdna: usize, count: usize, data: &[u8]) {
        let (len, sdna, count) = (data.len() as u64, sdna as u64, count as u64);
        let head = if self.shape.long {
            [self.number(sdna, 4), self.number(address, 8), self.number(len, 8), self.number(count, 8)].concat()
        } else {
            let address = self.number(address, self.pointer_bytes());
            [self.number(len, 4), address, self.number(sdna, 4), self.number(count, 4)].concat()
        };
        self.bytes.extend_from_slice(code);
        self.bytes.extend(head);
        self.bytes.extend_from_slice(data);
    }

    /// The whole file.
    pub fn finish(mut self) -> Vec<u8> {
        let mut names: Vec<&str> = STRUCTS.iter().flat_map(|(_, fields)| *fields).map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        let mut types: Vec<&str> = NUMBERS.iter().map(|(name, _)| *name).collect();
        types.extend(STRUCTS.iter().map(|(name, _)| *name));
        let pointees: Vec<&str> = STRUCTS.iter().flat_map(|(_, fields)| *fields).map(|(kind, _)| *kind).collect();
        for kind in pointees {
            if !types.contains(&kind) {
                types.push(kind);
            }
        }
        let index = |list: &[&str], item: &str| list.iter().position(|other| *other == item).unwrap_or(0) as u64;
        let mut dna = b"SDNA".to_vec();
        let pad = |dna: &mut Vec<u8>| dna.resize(dna.len().next_multiple_of(4), 0);
        for (tag, texts) in [(b"NAME", &names), (b"TYPE", &types)] {
            dna.extend_from_slice(tag);
            dna.extend(self.number(texts.len() as u64, 4));
            texts.iter().for_each(|text| dna.extend(text.bytes().chain([0])));
            pad(&mut dna);
        }
        dna.extend_from_slice(b"TLEN");
        types.iter().for_each(|kind| dna.extend(self.number(self.size(kind) as u64, 2)));
        pad(&mut dna);
        dna.extend_from_slice(b"STRC");
        dna.extend(self.number(STRUCTS.len() as u64, 4));
        for (kind, fields) in STRUCTS {
            dna.extend(self.number(index(&types, kind), 2));
            dna.extend(self.number(fields.len() as u64, 2));
            for (kind, name) in *fields {
                dna.extend(self.number(index(&types, kind), 2));
                dna.extend(self.number(index(&names, name), 2));
            }
        }
        self.raw(b"DNA1", 0, 0, 1, &dna);
        self.raw(b"ENDB", 0, 0, 0, &[]);
        self.bytes
    }
}

/// A whole scene: its camera set or only lying about, images at these paths, and materials linked from these libraries.
pub fn scene(shape: Shape, camera: bool, images: &[&[u8]], libraries: &[&[u8]]) -> Vec<u8> {
    use Value::{Address, Float, Int, Text};
    let mut file = Builder::new(shape);
    file.block(
        b"GLOB",
        1,
        "FileGlobal",
        &[&[("subversion", Int(7)), ("minversion", Int(303)), ("minsubversion", Int(6)), ("curscene", Address(0x20))]],
    );
    file.block(b"SC\0\0", 0x10, "Scene", &[&[("id.name", Text(b"SCOther"))]]);
    file.block(
        b"SC\0\0",
        0x20,
        "Scene",
        &[&[
            ("id.name", Text(b"SCMain")),
            ("id.properties", Address(0x30)),
            ("camera", Address(if camera { 0x50 } else { 0 })),
            ("base.first", Address(0x40)),
            ("ed", Address(0x70)),
            ("r.engine", Text(b"CYCLES")),
            ("r.im_format.imtype", Int(24)),
            ("r.im_format.depth", Int(16)),
            ("r.sfra", Int(-5)),
            ("r.efra", Int(48)),
            ("r.frame_step", Int(2)),
            ("r.frs_sec", Int(30)),
            ("r.frs_sec_base", Float(1.001)),
            ("r.xsch", Int(1001)),
            ("r.ysch", Int(777)),
            ("r.size", Int(33)),
            ("r.mode", Int(0xa00)),
            ("r.border.xmin", Float(0.25)),
            ("r.border.xmax", Float(0.75)),
            ("r.border.ymax", Float(0.5)),
        ]],
    );
    file.block(b"DATA", 0x30, "IDProperty", &[&[("type", Int(6)), ("data.group.first", Address(0x31))]]);
    file.block(
        b"DATA",
        0x31,
        "IDProperty",
        &[&[("type", Int(6)), ("name", Text(b"cycles")), ("data.group.first", Address(0x32))]],
    );
    let next = ("next", Address(0x33));
    file.block(
        b"DATA",
        0x32,
        "IDProperty",
        &[&[next, ("type", Int(1)), ("name", Text(b"samples")), ("data.val", Int(64))]],
    );
    file.block(
        b"DATA",
        0x33,
        "IDProperty",
        &[&[("type", Int(1)), ("name", Text(b"use_denoising")), ("data.val", Int(1))]],
    );
    // A list that bites its tail.
    file.block(b"DATA", 0x40, "Base", &[&[("next", Address(0x40)), ("object", Address(0x50))]]);
    file.block(b"DATA", 0x70, "Editing", &[&[("seqbase.first", Address(0x71))]]);
    file.block(b"DATA", 0x71, "Sequence", &[&[("type", Int(0)), ("strip", Address(0x72))]]);
    file.block(b"DATA", 0x72, "Strip", &[&[("stripdata", Address(0x73)), ("dir", Text(b"//strip/"))]]);
    file.block(b"DATA", 0x73, "StripElem", &[&[("name", Text(b"s 0001.png"))], &[("name", Text(b"s 0002.png"))]]);
    file.block(b"OB\0\0", 0x50, "Object", &[&[("id.name", Text(b"OBCam")), ("type", Int(11)), ("mat", Address(0x51))]]);
    file.addresses(0x51, &[0, 0x1000]);
    for (nth, path) in (0x1000..).zip(images) {
        let name = format!("IMimage{}", nth - 0x1000);
        file.block(
            b"IM\0\0",
            nth,
            "Image",
            &[&[("id.name", Text(name.as_bytes())), ("source", Int(1)), ("name", Text(path))]],
        );
    }
    for (nth, path) in (0x2000..).step_by(2).zip(libraries) {
        file.block(b"LI\0\0", nth, "Library", &[&[("id.name", Text(b"LIlib")), ("name", Text(path))]]);
        file.block(b"ID\0\0", nth + 1, "ID", &[&[("name", Text(b"OBCam"))]]);
    }
    file.finish()
}
