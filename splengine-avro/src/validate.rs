//! Looks over a client's datum before anything is made of it: lengths, blocks and depth, by the
//! schema that it was written with. What passes can be given to a decoder that trusts lengths.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::Name;

use crate::datum::{DatumError, Reader};

/// Steps over one value.
pub(crate) fn skip(schema: &Schema, from: &mut Reader) -> Result<(), DatumError> {
    let names = named_types(schema);
    let steps = from.left().saturating_mul(STEPS_PER_BYTE).saturating_add(FREE_STEPS);
    Walk { names, left: MAX_DEPTH, steps }.value(schema, from)
}

struct Walk<'s> {
    names: HashMap<&'s Name, &'s Schema>,
    left: usize,
    /// How many more values there may be: records can double without taking a byte.
    steps: usize,
}

fn named_types(schema: &Schema) -> HashMap<&Name, &Schema> {
    let (mut names, mut pending) = (HashMap::new(), vec![schema]);
    while let Some(schema) = pending.pop() {
        if let Some(name) = schema.name().filter(|_| !matches!(schema, Schema::Ref { .. })) {
            names.insert(name, schema);
        }
        match schema {
            Schema::Record(record) => {
                pending.extend(record.fields.iter().map(|field| &field.schema));
            }
            Schema::Array(array) => pending.push(&array.items),
            Schema::Map(map) => pending.push(&map.types),
            Schema::Union(union) => pending.extend(union.variants()),
            _ => {}
        }
    }
    names
}

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, from: &mut Reader) -> Result<(), DatumError> {
        self.left = self.left.checked_sub(1).ok_or_else(DatumError::deep)?;
        self.steps = self.steps.checked_sub(1).ok_or_else(DatumError::deep)?;
        match schema {
            Schema::Null => {}
            Schema::Boolean => {
                from.byte()?;
            }
            Schema::Float => {
                from.take(4)?;
            }
            Schema::Double => {
                from.take(8)?;
            }
            Schema::Bytes | Schema::String => {
                from.skip_sized()?;
            }
            Schema::Fixed(fixed) => {
                from.take(fixed.size)?;
            }
            Schema::Enum(symbols) => {
                from.symbol(symbols.symbols.len())?;
            }
            Schema::Union(union) => {
                let place = from.branch(union.variants().len())?;
                self.value(&union.variants()[place], from)?;
            }
            Schema::Record(record) => {
                for field in &record.fields {
                    self.value(&field.schema, from)?;
                }
            }
            Schema::Array(array) => {
                self.blocks(from, |walk, from| walk.value(&array.items, from))?
            }
            Schema::Map(map) => self.blocks(from, |walk, from| {
                from.skip_sized()?;
                walk.value(&map.types, from)
            })?,
            Schema::Ref { name } => {
                let schema = *self.names.get(name).ok_or_else(DatumError::deep)?;
                self.value(schema, from)?;
            }
            // Of the logical types only one is left in a protocol that was read.
            Schema::Int | Schema::Long | Schema::TimestampMillis => {
                from.long()?;
            }
            _ => return Err(DatumError::deep()),
        }
        self.left += 1;
        Ok(())
    }

    fn blocks(
        &mut self,
        from: &mut Reader,
        mut element: impl FnMut(&mut Self, &mut Reader) -> Result<(), DatumError>,
    ) -> Result<(), DatumError> {
        loop {
            match from.block(0)? {
                0 => return Ok(()),
                count => {
                    for _ in 0..count {
                        element(self, from)?;
                    }
                }
            }
        }
    }
}

const MAX_DEPTH: usize = 64;
/// Most values take a byte or more.
const STEPS_PER_BYTE: usize = 8;
const FREE_STEPS: usize = 4096;
