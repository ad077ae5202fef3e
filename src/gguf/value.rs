//! Metadata values: typed views of bytes.

use super::cursor::Cursor;
use super::{GgufError, Problem};

/// The longest metadata string, in bytes; chat templates have tens of KiB.
const STRING_CAP: usize = 1 << 20;
/// The most elements of an array; the largest vocabularies have 2¹⁸ tokens and as many merges.
const ARRAY_CAP: u64 = 1 << 22;

/// The type of a metadata value, with its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].get(id as usize).copied()
    }

    /// Bytes of a value of fixed size.
    fn size(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }
}

/// A metadata value. Numbers keep their declared type (rule K7): nothing is reinterpreted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// u8, u16, u32 or u64.
    Unsigned(u64),
    /// i8, i16, i32 or i64.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// Any byte but 0 is true (rule K6).
    Bool(bool),
    /// Bytes, usually UTF-8 but not promised to be.
    String(&'a [u8]),
    /// A typed list.
    Array(Array<'a>),
}

/// A list of values of one type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The type of its elements.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements' bytes: for strings, each with its 8-byte length before it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes, 0);
        let kind = self.kind;
        // The bytes were parsed once when the file was checked, so no read fails before the end.
        (0..self.len).map_while(move |_| scalar(&mut cursor, kind).ok())
    }

    /// The strings in order; empty for another type.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut tail = if self.kind == ValueType::String { self.bytes } else { &[] };
        core::iter::from_fn(move || {
            let string = first_string(tail)?;
            tail = tail.get(8 + string.len()..)?;
            Some(string)
        })
    }

    /// The string whose length starts at `at` in [`bytes`](Array::bytes); empty where none does.
    #[inline(never)]
    pub fn string_at(&self, at: usize) -> &'a [u8] {
        self.bytes.get(at..).and_then(first_string).unwrap_or(&[])
    }
}

/// The string at the start of `bytes`, which begin with its length.
fn first_string(bytes: &[u8]) -> Option<&[u8]> {
    let (len, tail) = bytes.split_first_chunk()?;
    tail.get(..usize::try_from(u64::from_le_bytes(*len)).ok()?)
}

/// Reads a type and a value. If the value was checked before and is known to end at `end`, an array is not parsed
/// again.
pub(super) fn value<'a>(cursor: &mut Cursor<'a>, end: Option<usize>) -> Result<Value<'a>, GgufError> {
    match kind(cursor)? {
        ValueType::Array => Ok(Value::Array(array(cursor, end)?)),
        kind => scalar(cursor, kind),
    }
}

fn kind(cursor: &mut Cursor<'_>) -> Result<ValueType, GgufError> {
    let start = *cursor;
    let id = cursor.u32()?;
    ValueType::from_id(id).ok_or(start.error(Problem::ValueType(id)))
}

fn scalar<'a>(cursor: &mut Cursor<'a>, kind: ValueType) -> Result<Value<'a>, GgufError> {
    use ValueType::*;
    Ok(match kind {
        U8 => Value::Unsigned(cursor.u8()?.into()),
        U16 => Value::Unsigned(cursor.u16()?.into()),
        U32 => Value::Unsigned(cursor.u32()?.into()),
        U64 => Value::Unsigned(cursor.u64()?),
        I8 => Value::Signed(cursor.u8()?.cast_signed().into()),
        I16 => Value::Signed(cursor.u16()?.cast_signed().into()),
        I32 => Value::Signed(cursor.u32()?.cast_signed().into()),
        I64 => Value::Signed(cursor.u64()?.cast_signed()),
        F32 => Value::Float(f32::from_bits(cursor.u32()?).into()),
        F64 => Value::Float(f64::from_bits(cursor.u64()?)),
        Bool => Value::Bool(cursor.u8()? != 0),
        String => Value::String(cursor.string(STRING_CAP)?),
        Array => return Err(cursor.error(Problem::NestedArray)),
    })
}

/// Rule K5: elements are scalars, and their number is checked against the remaining bytes before any is parsed.
fn array<'a>(cursor: &mut Cursor<'a>, end: Option<usize>) -> Result<Array<'a>, GgufError> {
    let kind = kind(cursor)?;
    let start = *cursor;
    let len = cursor.u64()?;
    if len > ARRAY_CAP {
        return Err(start.error(Problem::ArrayTooLong));
    }
    let len = len as usize; // at most ARRAY_CAP
    let bytes = match kind.size() {
        Some(size) => {
            let bytes = len.checked_mul(size).ok_or(start.error(Problem::Truncated))?;
            cursor.take(bytes).map_err(|_| start.error(Problem::Truncated))?
        }
        None if kind == ValueType::Array => return Err(start.error(Problem::NestedArray)),
        None => {
            if len > cursor.remaining() / 8 {
                return Err(start.error(Problem::Truncated));
            }
            let end = match end {
                Some(end) => end,
                None => {
                    let mut walk = *cursor;
                    (0..len).try_for_each(|_| walk.string(STRING_CAP).map(drop))?;
                    walk.at()
                }
            };
            cursor.take(end.saturating_sub(cursor.at()))?
        }
    };
    Ok(Array { kind, len, bytes })
}
