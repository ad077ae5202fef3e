//! One test for each rule of the GGUF reader: H (header), K (metadata), T (tensors). Each breaks a small file in one
//! way and names the error; what comes closest and is still allowed must pass, or the rule would prove nothing.
//!
//! Many of the ways are those of `tests/test-gguf.cpp` in llama.cpp and of the advisories about its reader.

use crate::common::gguf::{Gguf, Val};
use crate::common::untrusted;
use armlet::gguf::{File, GgufError, Problem, Value};

/// A file with a few keys and two tensors, `alpha` of 32 f32 and `beta` of 32 × 2 Q8_0.
fn base() -> Gguf {
    let mut g = Gguf::default();
    g.set("a.number", Val::U32(7)).set("a.text", Val::Str("text".into()));
    g.set("a.list", Val::I32s(vec![1, -2, 3])).set("a.names", Val::Strs(vec!["x".into(), String::new()]));
    g.tensor("alpha", &[32], 0, vec![1; 128]).tensor("beta", &[32, 2], 8, vec![2; 68]);
    g
}

/// Metadata of one entry.
fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut g = Gguf::default();
    g.set(key, Val::Raw(kind, value.into()));
    g.build()
}

/// A file of one tensor description, with `data` bytes of data.
fn tensor(dims: &[u64], kind: u32, data: usize) -> Vec<u8> {
    let mut g = Gguf::default();
    g.tensor("t", dims, kind, vec![0; data]);
    g.build()
}

/// Overwrites what is `skip` bytes after the only occurrence of `text`.
fn patched(mut bytes: Vec<u8>, text: &str, skip: usize, new: &[u8]) -> Vec<u8> {
    let places: Vec<usize> =
        bytes.windows(text.len()).enumerate().filter(|(_, w)| *w == text.as_bytes()).map(|(i, _)| i).collect();
    let [at] = places[..] else { panic!("{text} is there {} times", places.len()) };
    bytes[at + text.len() + skip..][..new.len()].copy_from_slice(new);
    bytes
}

/// `base()` with one of the header's fields overwritten.
fn header(at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = base().build();
    bytes[at..][..new.len()].copy_from_slice(new);
    bytes
}

#[track_caller]
fn refused(bytes: &[u8], problem: Problem) -> GgufError {
    let error = File::new_checked(bytes).expect_err("a broken file was accepted");
    assert_eq!(error.problem, problem);
    assert!(error.offset <= bytes.len() as u64, "{error} is outside the file");
    error
}

#[track_caller]
fn accepted(bytes: &[u8]) -> File<'_> {
    let file = File::new_checked(bytes).expect("a good file was refused");
    untrusted::walk(&file);
    file
}

#[test]
fn the_unbroken_file_is_read_as_it_was_written() {
    let bytes = base().build();
    let file = accepted(&bytes);
    assert_eq!((file.metadata_len(), file.tensors_len(), file.alignment()), (4, 2, 32));
    assert_eq!(file.get("a.number"), Some(Value::Unsigned(7)));
    assert_eq!(file.get("a.text"), Some(Value::String(b"text")));
    let Some(Value::Array(list)) = file.get("a.list") else { panic!("no list") };
    assert!(list.iter().eq([1, -2, 3].map(Value::Signed)));
    let Some(Value::Array(names)) = file.get("a.names") else { panic!("no names") };
    assert!(names.strings().eq([&b"x"[..], b""]));
    assert_eq!(file.tensor("beta").unwrap().data, [2; 68]);
}

#[test]
fn h1_magic() {
    for magic in [b"FUGG", b"gguf", b"FUGU", b"\0\0\0\0"] {
        assert_eq!(refused(&header(0, magic), Problem::Magic).offset, 0);
    }
    for short in [&b""[..], b"G", b"GGU"] {
        refused(short, Problem::Magic);
    }
    refused(b"GGUF", Problem::Truncated);
}

#[test]
fn h2_version() {
    for version in [0u32, 1, 4, 5, 0xffff, u32::MAX] {
        assert_eq!(refused(&header(4, &version.to_le_bytes()), Problem::Version(version)).offset, 4);
    }
    for version in [2u32, 3] {
        assert_eq!(accepted(&header(4, &version.to_le_bytes())).version(), version);
    }
}

#[test]
fn h3_big_endian() {
    for version in [1u32, 2, 3, 4] {
        refused(&header(4, &version.to_be_bytes()), Problem::BigEndian);
    }
}

#[test]
fn h4_counts_have_a_limit() {
    for at in [8, 16] {
        for count in [65_537, 1 << 31, 1 << 63, u64::MAX, u64::MAX / 24 + 2, u64::MAX / 13 + 2] {
            refused(&header(at, &count.to_le_bytes()), Problem::Count);
        }
        // The limit itself is not the reason.
        refused(&header(at, &65_536u64.to_le_bytes()), Problem::Truncated);
    }
    let mut g = Gguf::default();
    (0..65_536).for_each(|i| g.metadata.push((i.to_string(), Val::Bool(true))));
    assert_eq!(accepted(&g.build()).metadata_len(), 65_536);
}

#[test]
fn h5_counts_fit_the_bytes_left() {
    let empty = Gguf::default().build();
    assert_eq!(accepted(&empty).tensors().count(), 0);
    // 13 bytes hold one entry, of an empty key if need be; 24 one tensor. One byte fewer cannot.
    for (at, least) in [(16, 13), (8, 24)] {
        let mut bytes = empty.clone();
        bytes[at] = 1;
        bytes.resize(24 + least - 1, 0);
        assert_eq!(refused(&bytes, Problem::Truncated).offset, 8);
        bytes.push(0);
        assert_ne!(File::new_checked(&bytes).unwrap_err(), GgufError { problem: Problem::Truncated, offset: 8 });
    }
}

#[test]
fn k1_no_read_goes_past_the_end() {
    let whole = base().build();
    for len in 4..whole.len() {
        refused(&whole[..len], Problem::Truncated);
    }
    accepted(&whole);
}

#[test]
fn k2_key_lengths_and_encoding() {
    for len in [65_536u64, 1 << 31, 1 << 32, i64::MAX as u64, u64::MAX - 7, u64::MAX] {
        assert_eq!(
            refused(&[header(24, &len.to_le_bytes()), vec![b'k'; 70_000]].concat(), Problem::StringTooLong).offset,
            24
        );
    }
    refused(&entry("", 4, &[0; 4]), Problem::Key);
    refused(&patched(base().build(), "a.numbe", 0, b"\xff"), Problem::Key);
    refused(&entry(&"k".repeat(65_536), 4, &[0; 4]), Problem::StringTooLong);
    accepted(&entry(&"k".repeat(65_535), 4, &[0; 4]));
    accepted(&entry("ключ", 4, &[0; 4]));
    // All keys together: 64 of 65,535 bytes, and 64 bytes more.
    let mut g = Gguf::default();
    (0..64).for_each(|i| g.metadata.push((format!("{i:065535}"), Val::Bool(true))));
    g.metadata.push(("k".repeat(64), Val::Bool(true)));
    accepted(&g.build());
    g.metadata[64].0.push('k');
    refused(&g.build(), Problem::StringTooLong);
}

#[test]
fn k2_value_lengths_and_encoding() {
    for len in [(1u64 << 20) + 1, 1 << 32, u64::MAX, u64::MAX - 7] {
        refused(&entry("k", 8, &[&len.to_le_bytes()[..], &[b'v'; 100]].concat()), Problem::StringTooLong);
        refused(
            &entry("k", 9, &[&8u32.to_le_bytes()[..], &1u64.to_le_bytes(), &len.to_le_bytes()].concat()),
            Problem::StringTooLong,
        );
    }
    refused(&entry("k", 8, &[&101u64.to_le_bytes()[..], &[b'v'; 100]].concat()), Problem::Truncated);
    accepted(&entry("k", 8, &[&(1u64 << 20).to_le_bytes()[..], &vec![b'v'; 1 << 20]].concat()));
    // Tokens are bytes: a value need not be UTF-8.
    let bytes = entry("k", 8, &[&2u64.to_le_bytes()[..], b"\xff\xfe"].concat());
    assert_eq!(accepted(&bytes).get("k"), Some(Value::String(b"\xff\xfe")));
}

#[test]
fn k3_keys_are_distinct() {
    let mut g = base();
    g.metadata.push(("a.number".into(), Val::Bool(true)));
    refused(&g.build(), Problem::Duplicate);
    // Also across the windows of the check, and for the key that is used while reading.
    let mut g = Gguf::default();
    (0..600).for_each(|i| g.metadata.push((format!("k{i}"), Val::U32(i))));
    accepted(&g.build());
    g.metadata[599].0 = "k3".into();
    refused(&g.build(), Problem::Duplicate);
    let mut g = base();
    (0..2).for_each(|_| g.metadata.push(("general.alignment".into(), Val::U32(32))));
    refused(&g.build(), Problem::Duplicate);
}

#[test]
fn k4_value_types() {
    for kind in [13, 14, 255, 1 << 31, u32::MAX] {
        refused(&entry("k", kind, &[0; 64]), Problem::ValueType(kind));
        let array = [&kind.to_le_bytes()[..], &1u64.to_le_bytes(), &[0; 64]].concat();
        refused(&entry("k", 9, &array), Problem::ValueType(kind));
    }
    for kind in 0..=12 {
        let sizes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
        accepted(&entry("k", kind, &vec![0; sizes[kind as usize]]));
        refused(&entry("k", kind, &vec![0; sizes[kind as usize] - 1]), Problem::Truncated);
    }
}

#[test]
fn k5_arrays() {
    let array = |kind: u32, len: u64, bytes: usize| {
        entry("k", 9, &[&kind.to_le_bytes()[..], &len.to_le_bytes(), &vec![0; bytes]].concat())
    };
    refused(&array(9, 1, 64), Problem::NestedArray);
    refused(&array(9, 0, 64), Problem::NestedArray);
    for len in [(1 << 22) + 1, 1 << 32, 1 << 61, 1 << 62, 1 << 63, u64::MAX, u64::MAX / 8 + 2, u64::MAX / 4 + 2] {
        for kind in [0, 4, 8, 10, 12] {
            refused(&array(kind, len, 64), Problem::ArrayTooLong);
        }
    }
    // One element more than there are bytes for, and exactly as many.
    for (kind, size) in [(0, 1), (3, 2), (5, 4), (7, 1), (8, 8), (12, 8)] {
        refused(&array(kind, 9, 9 * size - 1), Problem::Truncated);
        accepted(&array(kind, 9, 9 * size));
        accepted(&array(kind, 0, 0));
    }
    accepted(&array(0, 1 << 22, 1 << 22));
}

#[test]
fn k6_any_byte_but_zero_is_true() {
    for (byte, truth) in [(0, false), (1, true), (2, true), (0x80, true), (0xff, true)] {
        assert_eq!(accepted(&entry("k", 7, &[byte])).get("k"), Some(Value::Bool(truth)));
        let array = [&7u32.to_le_bytes()[..], &1u64.to_le_bytes(), &[byte]].concat();
        let bytes = entry("k", 9, &array);
        let Some(Value::Array(list)) = accepted(&bytes).get("k") else { panic!("no list") };
        assert_eq!(list.iter().next(), Some(Value::Bool(truth)));
    }
}

/// The same bytes under each type: a getter gives what was declared and nothing else.
#[test]
fn k7_values_keep_their_type() {
    let ones = [0xff; 8];
    let expect = [
        (0, Value::Unsigned(0xff)),
        (1, Value::Signed(-1)),
        (2, Value::Unsigned(0xffff)),
        (3, Value::Signed(-1)),
        (4, Value::Unsigned(0xffff_ffff)),
        (5, Value::Signed(-1)),
        (7, Value::Bool(true)),
        (10, Value::Unsigned(u64::MAX)),
        (11, Value::Signed(-1)),
    ];
    for (kind, value) in expect {
        let bytes = [entry("k", kind, &ones), vec![0; 8]].concat();
        assert_eq!(accepted(&bytes).get("k"), Some(value));
        let array = [&u32::to_le_bytes(kind)[..], &1u64.to_le_bytes(), &ones].concat();
        let bytes = entry("k", 9, &array);
        let Some(Value::Array(list)) = accepted(&bytes).get("k") else { panic!("no list") };
        assert!(list.iter().eq([value]) && list.strings().next().is_none());
    }
    for (kind, bytes) in [(6, &ones[..4]), (12, &ones[..])] {
        let file = entry("k", kind, bytes);
        assert!(matches!(accepted(&file).get("k"), Some(Value::Float(x)) if x.is_nan()));
    }
}

#[test]
fn k8_alignment() {
    let aligned = |kind: u32, value: &[u8]| entry("general.alignment", kind, value);
    for a in [0u32, 1, 2, 4, 7, 13, 24, 33, (1 << 20) + 1, 1 << 21, 1 << 31, u32::MAX] {
        refused(&aligned(4, &a.to_le_bytes()), Problem::Alignment);
    }
    for a in (3..=20).map(|i| 1u32 << i) {
        assert_eq!(accepted(&aligned(4, &a.to_le_bytes())).alignment(), u64::from(a));
    }
    // The right number in another type.
    let text = [&2u64.to_le_bytes()[..], b"32"].concat();
    let list = [&4u32.to_le_bytes()[..], &1u64.to_le_bytes(), &32u32.to_le_bytes()].concat();
    let (float, wide) = (32f32.to_le_bytes(), 32u64.to_le_bytes());
    for (kind, value) in [
        (0, &wide[..1]),
        (2, &wide[..2]),
        (5, &wide[..4]),
        (6, &float),
        (8, &text),
        (9, &list),
        (10, &wide),
        (11, &wide),
    ] {
        refused(&aligned(kind, value), Problem::Alignment);
    }
}

/// Offsets are multiples of the file's own alignment, whichever entry it stands in.
#[test]
fn k8_alignment_is_used() {
    let mut g = base();
    g.set("general.alignment", Val::U32(64));
    g.alignment = 64;
    let bytes = g.build();
    assert_eq!(accepted(&bytes).tensor("beta").unwrap().data, [2; 68]);
    // A writer that kept to 32 bytes: `beta` starts at 160, where 192 is wanted.
    g.tensors[0].data.truncate(32 * 4);
    g.tensor("gamma", &[8], 0, vec![3; 32]).tensor("delta", &[8], 0, vec![4; 32]);
    g.alignment = 32;
    refused(&g.build(), Problem::TensorOffset);
}

#[test]
fn t1_tensor_names() {
    let named = |name: &str| {
        let mut g = Gguf::default();
        g.tensor(name, &[8], 0, vec![0; 32]);
        g.build()
    };
    accepted(&named(&"n".repeat(63)));
    for len in [64, 65, 255, 70_000] {
        refused(&named(&"n".repeat(len)), Problem::TensorName);
    }
    for len in [1u64 << 32, u64::MAX, u64::MAX - 7] {
        let mut bytes = named("name");
        bytes[24..32].copy_from_slice(&len.to_le_bytes());
        refused(&bytes, Problem::TensorName);
    }
    refused(&patched(named("name"), "nam", 0, b"\xff"), Problem::TensorName);
    let mut g = base();
    g.tensors[1].name = "alpha".into();
    refused(&g.build(), Problem::Duplicate);
    // The names of tensors and of metadata are apart.
    g.tensors[1].name = "a.number".into();
    accepted(&g.build());
}

#[test]
fn t1_names_are_distinct_among_thousands() {
    let mut g = Gguf::default();
    for i in 0..700 {
        g.tensor(&format!("t{i}"), &[8], 0, vec![0; 32]);
    }
    accepted(&g.build());
    g.tensors[690].name = "t1".into();
    refused(&g.build(), Problem::Duplicate);
}

#[test]
fn t2_number_of_dimensions() {
    for n in [0, 5, 6, 64] {
        refused(&tensor(&vec![1; n], 0, 64), Problem::TensorShape);
    }
    for n in [u32::MAX, 1 << 31, 1 << 30] {
        refused(&patched(base().build(), "alpha", 0, &n.to_le_bytes()), Problem::TensorShape);
    }
    for n in 1..=4 {
        assert_eq!(accepted(&tensor(&vec![2; n], 0, 4 << n)).tensors().next().unwrap().n_dims, n);
    }
}

#[test]
fn t3_dimensions() {
    for dims in [&[0][..], &[0, 4], &[4, 0], &[4, 4, 0], &[4, 4, 4, 0]] {
        refused(&tensor(dims, 0, 64), Problem::TensorShape);
    }
    // Products that do not fit 64 bits, or only with the sign: the number of weights, then of bytes.
    let half = 1u64 << 32;
    for dims in [
        &[half, half][..],
        &[half, half / 2],
        &[u64::MAX, 2],
        &[1 << 63, 2],
        &[1 << 62, 1, 1, 8],
        &[half, 1, half, half],
    ] {
        refused(&tensor(dims, 24, 64), Problem::TensorShape);
        refused(&tensor(dims, 0, 64), Problem::TensorShape);
    }
    // A product that wraps round to something small.
    refused(&tensor(&[(1 << 32) + 1, (1 << 32) - 1, 1 << 32, 1], 24, 64), Problem::TensorShape);
    accepted(&tensor(&[4, 2, 1, 2], 0, 64));
}

#[test]
fn t4_tensor_types() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, 255, 1 << 31, u32::MAX] {
        refused(&tensor(&[256], id, 2048), Problem::TensorType(id));
    }
    // Types that the format has are read, whether armlet computes with them or not: that is the model's to say.
    for (id, name, bytes) in
        [(0, "F32", 1024), (2, "Q4_0", 144), (12, "Q4_K", 144), (14, "Q6_K", 210), (39, "MXFP4", 136)]
    {
        let bytes = tensor(&[256], id, bytes);
        assert_eq!(accepted(&bytes).tensors().next().unwrap().kind.name, name);
    }
}

/// Types in panels are armlet's own: of quantised formats, and matrices only.
#[test]
fn t4_panels() {
    const PANELS: u32 = 0x4150_0000;
    for id in [0, 1, 7, 10, 30, 31, 255].map(|id| PANELS | id).into_iter().chain([0x4150_0102, 0x4151_0002]) {
        refused(&tensor(&[256, 16], id, 1 << 14), Problem::TensorType(id));
    }
    for (id, block, name) in [(2, 18, "Q4_0 in panels"), (3, 20, "Q4_1 in panels"), (8, 34, "Q8_0 in panels")] {
        let panels = |dims: &[u64], data: usize| tensor(dims, PANELS | id, data);
        // Whole panels are there, however few rows of the last one are used.
        for (rows, stored) in [(1, 16), (15, 16), (16, 16), (17, 32), (33, 48)] {
            let bytes = panels(&[64, rows], stored * 2 * block);
            let t = accepted(&bytes).tensor("t").unwrap();
            assert_eq!((t.kind.name, t.data.len(), t.dims[1]), (name, stored * 2 * block, rows));
            refused(&panels(&[64, rows], stored * 2 * block - 1), Problem::Truncated);
        }
        for dims in [&[32][..], &[32, 16, 1], &[32, 16, 2], &[32, 16, 1, 1]] {
            refused(&panels(dims, 1 << 12), Problem::PackedShape);
        }
        for dims in [[32, 0], [0, 16], [1, 16], [31, 16], [33, 16], [48, 16]] {
            refused(&panels(&dims, 1 << 12), Problem::TensorShape);
        }
        // Sizes that overflow: as such, when padded, and as bytes only when padded.
        let most = i64::MAX as u64 / block as u64;
        assert_ne!(most % 16, 0);
        for dims in [[32, u64::MAX], [32, u64::MAX - 14], [u64::MAX - 31, 2], [1 << 32, 1 << 32], [32, most]] {
            refused(&panels(&dims, 64), Problem::TensorShape);
        }
        refused(&panels(&[32, 1 << 56], 64), Problem::Truncated);
        refused(&panels(&[32, (1 << 32) + 1], 16 * block), Problem::Truncated);
    }
    // The padding is the tensor's: another one there overlaps.
    let mut g = Gguf::default();
    g.tensor("first", &[32, 1], PANELS | 8, vec![0; 544]).tensor("second", &[8], 0, vec![0; 32]);
    accepted(&g.build());
    for offset in [64u64, 512] {
        refused(&patched(g.build(), "second", 4 + 8 + 4, &offset.to_le_bytes()), Problem::TensorOffset);
    }
}

#[test]
fn t5_rows_are_whole_blocks() {
    for (id, block) in [(2, 32), (3, 32), (8, 32), (12, 256), (14, 256), (40, 64)] {
        for cols in [1, block - 1, block + 1, block * 3 / 2] {
            refused(&tensor(&[cols, block], id, 1 << 16), Problem::TensorShape);
        }
        accepted(&tensor(&[block, 3], id, 3 * 512));
    }
}

#[test]
fn t6_bytes_do_not_overflow() {
    // 2⁶² weights of four or eight bytes; 2⁶⁴ − 16 bytes, which padding would wrap to 0; i64::MAX of one byte.
    for (dims, kind) in [
        (&[1u64 << 62][..], 0),
        (&[1 << 61, 1], 27),
        (&[4, (1 << 30) - 1, (1 << 30) + 1], 0),
        (&[1 << 63], 24),
        (&[u64::MAX / 34 * 32], 8),
    ] {
        refused(&tensor(dims, kind, 64), Problem::TensorShape);
    }
    // The most that a size may be: no overflow, but no such file either.
    refused(&tensor(&[i64::MAX as u64], 24, 64), Problem::Truncated);
    accepted(&tensor(&[64], 24, 64));
}

#[test]
fn t7_padding_does_not_overflow() {
    // Two tensors whose padded sizes add to 2⁶⁴.
    let huge = 0x7fff_ffff_ffff_ffc0u64;
    let mut g = Gguf::default();
    g.tensor("a", &[64], 24, vec![0; 64]).tensor("huge", &[64], 24, vec![0; 64]);
    accepted(&g.build());
    for (size, offset) in [(huge, huge), (huge, 64), (64, huge), (huge, u64::MAX - 31)] {
        let field =
            [&1u32.to_le_bytes()[..], &size.to_le_bytes(), &24u32.to_le_bytes(), &offset.to_le_bytes()].concat();
        refused(&patched(g.build(), "huge", 0, &field), Problem::Truncated);
    }
    // The end of the descriptions rounded up is beyond a file that has no data.
    let mut g = Gguf::default();
    g.set("general.alignment", Val::U32(1 << 20));
    assert_eq!(accepted(&g.build()).tensors().count(), 0);
}

/// A fork writes groups of 128 with the number that ggml gave to groups of 64: fewer bytes.
#[test]
fn t8_other_layouts_of_type_42_are_told_apart() {
    let file = |bytes: usize, last: bool| {
        let mut g = Gguf::default();
        g.tensor("q2", &[128, 64], 42, vec![0; bytes]);
        if !last {
            g.tensor("next", &[8], 0, vec![0; 32]);
        }
        g.build()
    };
    for last in [false, true] {
        accepted(&file(64 * 36, last));
        refused(&file(64 * 34, last), Problem::Q2Groups);
    }
}

/// `base()` with the offset of `beta` changed; its description is name, dims count, two dims, type, offset.
fn beta_at(offset: u64) -> Vec<u8> {
    patched(base().build(), "beta", 4 + 16 + 4, &offset.to_le_bytes())
}

#[test]
fn t8_data_lie_in_the_file() {
    accepted(&beta_at(128));
    for offset in [1, 8, 31, 127, 129, u64::MAX, (1 << 63) + 1] {
        refused(&beta_at(offset), Problem::TensorOffset);
    }
    for offset in [160, 1 << 20, 1 << 32, 1 << 63, u64::MAX - 31, u64::MAX - 63] {
        refused(&beta_at(offset), Problem::Truncated);
    }
}

#[test]
fn t8_data_do_not_overlap() {
    // Inside `alpha`, from its start and up to its end.
    for offset in [0, 32, 64, 96] {
        refused(&beta_at(offset), Problem::TensorOffset);
    }
    // Out of order is unusual and allowed; overlapping is found there too.
    let swapped = |first: u64, second: u64| {
        let mut g = Gguf::default();
        g.tensor("first", &[16], 0, vec![1; 64]).tensor("second", &[8], 0, vec![2; 32]);
        g.tensor("third", &[8], 0, vec![3; 32]);
        let bytes = patched(g.build(), "first", 4 + 8 + 4, &first.to_le_bytes());
        patched(bytes, "second", 4 + 8 + 4, &second.to_le_bytes())
    };
    assert_eq!(accepted(&swapped(0, 64)).tensors().map(|t| t.data[0]).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(accepted(&swapped(32, 0)).tensors().map(|t| t.data[0]).collect::<Vec<_>>(), [1, 1, 3]);
    for (first, second) in [(32, 32), (64, 0), (32, 64), (0, 32), (32, 96)] {
        refused(&swapped(first, second), Problem::TensorOffset);
    }
}

#[test]
fn t9_padding_after_the_last_tensor_may_be_missing() {
    let bytes = base().build();
    assert_ne!(bytes.len() % 32, 0, "the writer left it out");
    accepted(&bytes);
    accepted(&[&bytes[..], &[0; 28]].concat());
    accepted(&[&bytes[..], &[0; 1000]].concat());
    refused(&bytes[..bytes.len() - 1], Problem::Truncated);
}

/// Sizes whose low 32 bits alone would be valid: a host of 32 bits must refuse them as one of 64 does.
#[test]
fn t10_sizes_are_not_cut_to_32_bits() {
    let high = 1u64 << 32;
    for (at, problem) in [(8, Problem::Count), (16, Problem::Count), (24, Problem::StringTooLong)] {
        let bytes = base().build();
        let low = u64::from_le_bytes(bytes[at..][..8].try_into().unwrap());
        refused(&header(at, &(low + high).to_le_bytes()), problem);
    }
    refused(&beta_at(128 + high), Problem::Truncated);
    refused(&patched(base().build(), "alpha", 4, &(32 + high).to_le_bytes()), Problem::Truncated);
    refused(&patched(base().build(), "a.list", 8, &(3 + high).to_le_bytes()), Problem::ArrayTooLong);
    refused(&patched(base().build(), "a.text", 4, &(4 + high).to_le_bytes()), Problem::StringTooLong);
}
