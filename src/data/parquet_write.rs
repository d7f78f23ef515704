//! Rows as a Parquet file: the schema is read off the rows, lists and objects are shredded into levels as in Dremel
//! (Melnik et al. 2010).

use std::sync::Arc;

use ::parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use ::parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use ::parquet::errors::Result as ParquetResult;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What a column, or a part of one, holds
#[derive(Debug, Clone, PartialEq)]
enum Shape {
    /// Nothing but null so far
    Unknown,
    Bool,
    Integer,
    Number,
    Text,
    List(Box<Shape>),
    Object(Vec<(String, Shape)>),
}

/// The rows as the bytes of a file
pub(super) fn encode(rows: &[&Map<String, Value>], columns: &[String]) -> Result<Vec<u8>> {
    let mut shapes = Vec::with_capacity(columns.len());
    for column in columns {
        let mut shape = Shape::Unknown;
        for row in rows {
            if let Some(value) = row.get(column) {
                shape.admit(value).map_err(|what| {
                    Error::usage(format!("`{column}` {what}, which one Parquet column cannot hold"))
                        .hint("write `.jsonl`, or leave that column out")
                })?;
            }
        }
        shapes.push((column.clone(), shape));
    }
    let mut leaves: Vec<Leaf> = shapes.iter().flat_map(|(_, shape)| shape.leaves(0)).collect();
    for row in rows {
        let mut at = 0;
        for (column, shape) in &shapes {
            let value = row.get(column).unwrap_or(&Value::Null);
            shape.shred(value, Level { definition: 0, repetition: 0, lists: 0 }, &mut leaves[at..]);
            at += shape.width();
        }
    }
    write(&shapes, &leaves).map_err(|cause| Error::run(format!("cannot write Parquet: {cause}")))
}

fn write(shapes: &[(String, Shape)], leaves: &[Leaf]) -> ParquetResult<Vec<u8>> {
    let fields = shapes.iter().map(|(name, shape)| shape.field(name).map(Arc::new)).collect::<ParquetResult<_>>()?;
    let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    for leaf in leaves {
        let Some(mut out) = group.next_column()? else { break };
        let (definitions, repetitions) = (Some(&leaf.definitions[..]), leaf.nested.then_some(&leaf.repetitions[..]));
        match &leaf.values {
            Column::Bool(values) => out.typed::<BoolType>().write_batch(values, definitions, repetitions)?,
            Column::Integer(values) => out.typed::<Int64Type>().write_batch(values, definitions, repetitions)?,
            Column::Number(values) => out.typed::<DoubleType>().write_batch(values, definitions, repetitions)?,
            Column::Text(values) => out.typed::<ByteArrayType>().write_batch(values, definitions, repetitions)?,
        };
        out.close()?;
    }
    group.close()?;
    writer.into_inner()
}

/// One column of plain values with its levels
struct Leaf {
    values: Column,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
    /// Whether it lies in a list
    nested: bool,
}

enum Column {
    Bool(Vec<bool>),
    Integer(Vec<i64>),
    Number(Vec<f64>),
    Text(Vec<ByteArray>),
}

/// Where in the tree a value stands
#[derive(Clone, Copy)]
struct Level {
    /// How many of its ancestors are there
    definition: i16,
    /// The list that it is a further element of
    repetition: i16,
    /// Lists around it
    lists: i16,
}

impl Shape {
    /// Widens so that it holds this value too, or says what does not go together
    fn admit(&mut self, value: &Value) -> std::result::Result<(), String> {
        let found = match value {
            Value::Null => return Ok(()),
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Integer,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) => Self::List(Box::new(Self::Unknown)),
            Value::Object(_) => Self::Object(Vec::new()),
        };
        let known = std::mem::replace(self, Self::Unknown);
        *self = match (known, found) {
            (Self::Unknown, found) => found,
            (Self::Integer | Self::Number, Self::Number) | (Self::Number, Self::Integer) => Self::Number,
            (Self::List(item), Self::List(_)) => Self::List(item),
            (Self::Object(fields), Self::Object(_)) => Self::Object(fields),
            (known, found) if known == found => known,
            (known, found) => return Err(format!("holds {} as well as {}", known.name(), found.name())),
        };
        match (self, value) {
            (Self::List(item), Value::Array(items)) => items.iter().try_for_each(|value| item.admit(value)),
            (Self::Object(fields), Value::Object(entries)) => entries.iter().try_for_each(|(name, value)| {
                let at = fields.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                    fields.push((name.clone(), Self::Unknown));
                    fields.len() - 1
                });
                fields[at].1.admit(value)
            }),
            _ => Ok(()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "nothing",
            Self::Bool => "truth values",
            Self::Integer | Self::Number => "numbers",
            Self::Text => "texts",
            Self::List(_) => "lists",
            Self::Object(_) => "objects",
        }
    }

    /// An optional field of the schema. What is never there is a column of missing texts
    fn field(&self, name: &str) -> ParquetResult<Type> {
        let plain = |physical| Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        match self {
            Self::Bool => plain(PhysicalType::BOOLEAN).build(),
            Self::Integer => plain(PhysicalType::INT64).build(),
            Self::Number => plain(PhysicalType::DOUBLE).build(),
            Self::Object(fields) if !fields.is_empty() => {
                let fields = fields.iter().map(|(name, shape)| shape.field(name).map(Arc::new));
                let fields = fields.collect::<ParquetResult<Vec<TypePtr>>>()?;
                Type::group_type_builder(name).with_repetition(Repetition::OPTIONAL).with_fields(fields).build()
            }
            Self::List(item) => {
                let element = Arc::new(item.field("element")?);
                let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
                let list = Arc::new(list.with_fields(vec![element]).build()?);
                Type::group_type_builder(name)
                    .with_repetition(Repetition::OPTIONAL)
                    .with_converted_type(ConvertedType::LIST)
                    .with_logical_type(Some(LogicalType::List))
                    .with_fields(vec![list])
                    .build()
            }
            Self::Unknown | Self::Text | Self::Object(_) => plain(PhysicalType::BYTE_ARRAY)
                .with_converted_type(ConvertedType::UTF8)
                .with_logical_type(Some(LogicalType::String))
                .build(),
        }
    }

    /// Its columns of plain values, below so many lists
    fn leaves(&self, lists: i16) -> Vec<Leaf> {
        let values = match self {
            Self::List(item) => return item.leaves(lists + 1),
            Self::Object(fields) if !fields.is_empty() => {
                return fields.iter().flat_map(|(_, shape)| shape.leaves(lists)).collect();
            }
            Self::Bool => Column::Bool(Vec::new()),
            Self::Integer => Column::Integer(Vec::new()),
            Self::Number => Column::Number(Vec::new()),
            Self::Unknown | Self::Text | Self::Object(_) => Column::Text(Vec::new()),
        };
        vec![Leaf { values, definitions: Vec::new(), repetitions: Vec::new(), nested: lists > 0 }]
    }

    /// How many those are
    fn width(&self) -> usize {
        match self {
            Self::List(item) => item.width(),
            Self::Object(fields) if !fields.is_empty() => fields.iter().map(|(_, shape)| shape.width()).sum(),
            _ => 1,
        }
    }

    /// Puts a value into its leaves
    fn shred(&self, value: &Value, level: Level, leaves: &mut [Leaf]) {
        let missing = |level: Level, leaves: &mut [Leaf]| {
            for leaf in &mut leaves[..self.width()] {
                leaf.definitions.push(level.definition);
                leaf.repetitions.push(level.repetition);
            }
        };
        let there = Level { definition: level.definition + 1, ..level };
        match (self, value) {
            (Self::Object(fields), Value::Object(entries)) if !fields.is_empty() => {
                let mut at = 0;
                for (name, shape) in fields {
                    shape.shred(entries.get(name).unwrap_or(&Value::Null), there, &mut leaves[at..]);
                    at += shape.width();
                }
            }
            (Self::List(_), Value::Array(items)) if items.is_empty() => missing(there, leaves),
            (Self::List(item), Value::Array(items)) => {
                let lists = level.lists + 1;
                for (i, value) in items.iter().enumerate() {
                    let repetition = if i == 0 { level.repetition } else { lists };
                    let level = Level { definition: level.definition + 2, repetition, lists };
                    item.shred(value, level, leaves);
                }
            }
            (_, value) if leaves[0].push(value) => {
                leaves[0].definitions.push(there.definition);
                leaves[0].repetitions.push(level.repetition);
            }
            _ => missing(level, leaves),
        }
    }
}

impl Leaf {
    /// Whether the value is one of its own
    fn push(&mut self, value: &Value) -> bool {
        match (&mut self.values, value) {
            (Column::Bool(values), Value::Bool(value)) => values.push(*value),
            (Column::Integer(values), Value::Number(number)) => values.push(number.as_i64().unwrap_or_default()),
            (Column::Number(values), Value::Number(number)) => values.push(number.as_f64().unwrap_or(f64::NAN)),
            (Column::Text(values), Value::String(text)) => values.push(ByteArray::from(text.as_str())),
            _ => return false,
        }
        true
    }
}
