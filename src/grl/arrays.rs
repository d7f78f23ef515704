//! Flat named arrays with a header, and their bytes (safetensors): how a memory, a feature map or a replay store is kept.
//!
//! The header says what the arrays are and what they belong to (model, feature map), so that a file of another model is
//! refused by name and not used by mistake. Where the bytes go is not this room's business.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Under which key of the file's metadata the header lies, as one JSON object
const HEADER: &str = "collimate";

/// Raised when a change makes older files unreadable
const FORMAT: u32 = 1;

/// What a file of arrays says about itself
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// What kind of thing it holds: `prompt memory`, `feature map`, …
    pub kind: String,
    /// The layout's number
    pub format: u32,
    /// The model whose states or log-probabilities these are
    pub model: String,
    /// The feature map that made the features; empty for things without features
    pub feature_map: String,
    /// What else belongs to the kind, as JSON
    pub extra: serde_json::Value,
}

impl Header {
    /// A header of the present layout
    pub fn new(kind: &str, owner: &Owner, extra: serde_json::Value) -> Self {
        Self {
            kind: kind.to_owned(),
            format: FORMAT,
            model: owner.model.clone(),
            feature_map: owner.feature_map.clone(),
            extra,
        }
    }
}

/// To which model and feature map arrays belong
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// A name or checksum of the model
    pub model: String,
    /// A name or checksum of the feature map
    pub feature_map: String,
}

/// The numbers of one array
#[derive(Debug, Clone, PartialEq)]
pub enum Numbers {
    /// Features, log-probabilities
    F32(Vec<f32>),
    /// Statistics and weights
    F64(Vec<f64>),
    /// Tokens, stamps, small counts
    U32(Vec<u32>),
    /// Keys
    U64(Vec<u64>),
}

impl Numbers {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::U64(values) => values.len(),
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::F64(_) => Dtype::F64,
            Self::U32(_) => Dtype::U32,
            Self::U64(_) => Dtype::U64,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    fn from_bytes(dtype: Dtype, bytes: &[u8]) -> Option<Self> {
        let fours = || bytes.as_chunks::<4>().0.iter().copied();
        let eights = || bytes.as_chunks::<8>().0.iter().copied();
        match dtype {
            Dtype::F32 => Some(Self::F32(fours().map(f32::from_le_bytes).collect())),
            Dtype::U32 => Some(Self::U32(fours().map(u32::from_le_bytes).collect())),
            Dtype::F64 => Some(Self::F64(eights().map(f64::from_le_bytes).collect())),
            Dtype::U64 => Some(Self::U64(eights().map(u64::from_le_bytes).collect())),
            _ => None,
        }
    }
}

macro_rules! numbers_from {
    ($($number:ty => $variant:ident),*) => { $(
        impl From<Vec<$number>> for Numbers {
            fn from(values: Vec<$number>) -> Self {
                Self::$variant(values)
            }
        }

        impl TryFrom<Numbers> for Vec<$number> {
            type Error = Dtype;

            fn try_from(numbers: Numbers) -> std::result::Result<Self, Dtype> {
                match numbers {
                    Numbers::$variant(values) => Ok(values),
                    other => Err(other.dtype()),
                }
            }
        }
    )* };
}
numbers_from!(f32 => F32, f64 => F64, u32 => U32, u64 => U64);

/// A header and its arrays
#[derive(Debug, Clone, PartialEq)]
pub struct Arrays {
    header: Header,
    arrays: BTreeMap<String, (Vec<usize>, Numbers)>,
}

impl Arrays {
    /// No arrays yet
    pub fn new(header: Header) -> Self {
        Self { header, arrays: BTreeMap::new() }
    }

    /// The header
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// A whole number of the header's `extra`
    pub fn size(&self, name: &str) -> Result<usize> {
        let value = self.header.extra.get(name).and_then(serde_json::Value::as_u64);
        let missing = || Error::usage(format!("the header of a {} has no whole number `{name}`", self.header.kind));
        value.map(|value| value as usize).ok_or_else(missing)
    }

    /// Adds a flat array
    #[must_use]
    pub fn with(self, name: &str, values: impl Into<Numbers>) -> Self {
        let numbers = values.into();
        let shape = vec![numbers.len()];
        self.insert(name, shape, numbers)
    }

    /// Adds an array with rows of `columns` numbers
    #[must_use]
    pub fn with_rows(self, name: &str, columns: usize, values: impl Into<Numbers>) -> Self {
        let numbers = values.into();
        let rows = numbers.len().checked_div(columns).unwrap_or(0);
        self.insert(name, vec![rows, columns], numbers)
    }

    fn insert(mut self, name: &str, shape: Vec<usize>, numbers: Numbers) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), numbers.len(), "`{name}` does not have shape {shape:?}");
        self.arrays.insert(name.to_owned(), (shape, numbers));
        self
    }

    /// Takes an array that must hold `count` numbers
    pub fn take<T>(&mut self, name: &str, count: usize) -> Result<Vec<T>>
    where
        Vec<T>: TryFrom<Numbers, Error = Dtype>,
    {
        let kind = &self.header.kind;
        let Some((shape, numbers)) = self.arrays.remove(name) else {
            return Err(Error::usage(format!("the {kind} has no array `{name}`")));
        };
        if numbers.len() != count {
            return Err(Error::usage(format!(
                "array `{name}` of the {kind} has shape {shape:?}, expected {count} numbers"
            )));
        }
        let wrong =
            |found| Error::usage(format!("array `{name}` of the {kind} holds {found}, another type than expected"));
        Vec::try_from(numbers).map_err(wrong)
    }

    /// The bytes of a safetensors file, the same for the same content
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let header =
            serde_json::to_string(&self.header).map_err(|cause| Error::run(format!("a header as JSON: {cause}")))?;
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        let views = self
            .arrays
            .iter()
            .map(|(name, (shape, numbers))| (name, Raw { shape, dtype: numbers.dtype(), bytes: numbers.to_bytes() }));
        safetensors::serialize(views, Some(metadata))
            .map_err(|cause| Error::run(format!("arrays as safetensors: {cause}")))
    }

    /// Reads the bytes of a file that must be a `kind` belonging to `owner`
    pub fn from_bytes(bytes: &[u8], kind: &str, owner: &Owner) -> Result<Self> {
        let damaged = |cause: &dyn std::fmt::Display| {
            Error::usage(format!("this is no complete {kind}: {cause}"))
                .hint("the file is truncated or of another kind")
        };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|cause| damaged(&cause))?;
        let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(HEADER));
        let header: Header = match header {
            None => return Err(damaged(&"its header does not come from this program")),
            Some(header) => serde_json::from_str(header).map_err(|cause| damaged(&cause))?,
        };
        check_header(&header, kind, owner)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|cause| damaged(&cause))?;
        let mut arrays = BTreeMap::new();
        for (name, view) in tensors.iter() {
            let Some(numbers) = Numbers::from_bytes(view.dtype(), view.data()) else {
                return Err(damaged(&format!("array `{name}` has type {}", view.dtype())));
            };
            arrays.insert(name.to_owned(), (view.shape().to_vec(), numbers));
        }
        Ok(Self { header, arrays })
    }
}

fn check_header(header: &Header, kind: &str, owner: &Owner) -> Result<()> {
    if header.kind != kind {
        return Err(Error::usage(format!("expected a {kind}, found a {}", header.kind)));
    }
    if header.format != FORMAT {
        let message = format!("this {kind} has format {}, and this program reads {FORMAT}", header.format);
        return Err(Error::usage(message).hint("it was written by another version of the program"));
    }
    if header.model != owner.model {
        let message = format!("this {kind} belongs to model `{}`, not to `{}`", header.model, owner.model);
        return Err(Error::usage(message).hint("features and soft returns of one model say nothing about another"));
    }
    if header.feature_map != owner.feature_map {
        let message =
            format!("this {kind} was made with feature map `{}`, not with `{}`", header.feature_map, owner.feature_map);
        return Err(Error::usage(message).hint("distances between features of two maps mean nothing"));
    }
    Ok(())
}

struct Raw<'a> {
    shape: &'a [usize],
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl View for Raw<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
