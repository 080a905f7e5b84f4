//! Looks over a client's datum before anything is made of it: lengths, blocks, depth, and the memory that
//! its values will take, by the schema that it was written with. What passes can be given to a decoder that
//! trusts lengths.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordField};
use apache_avro::types::Value;

use crate::datum::{DatumError, Reader};

/// Steps over one value that is to be read as `reader` has it; gives the memory that it takes meanwhile, in
/// bytes, about, which is bounded.
pub(crate) fn skip(
    schema: &Schema,
    reader: &Schema,
    from: &mut Reader,
) -> Result<usize, DatumError> {
    let names = named_types(schema);
    let most = from.left().saturating_mul(MAX_BYTES_PER_BYTE).saturating_add(FREE_BYTES);
    let most = most.min(MAX_BYTES);
    let record = named_types(reader).values().map(|schema| record_bytes(schema)).max();
    let record = record.unwrap_or_default().max(record_bytes(reader));
    let mut walk = Walk { names, left: MAX_DEPTH, bytes: most, record };
    walk.value(schema, from)?;
    Ok(most - walk.bytes)
}

/// What a record takes of which all fields have their defaults.
fn record_bytes(schema: &Schema) -> usize {
    let Schema::Record(record) = schema else { return 0 };
    let field = |field: &RecordField| FIELD_BYTES + field.name.len() + 2 * VALUE_BYTES;
    record.fields.iter().map(field).sum()
}

struct Walk<'s> {
    names: HashMap<&'s Name, &'s Schema>,
    left: usize,
    /// How many more bytes of memory values may take: a record of many fields may be none on the wire.
    bytes: usize,
    /// What one of our records takes at most that a record or map may be read as.
    record: usize,
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
    fn take(&mut self, bytes: usize) -> Result<(), DatumError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(DatumError::costly)?;
        Ok(())
    }

    /// Steps over a text or bytes, of which a copy is made.
    fn sized(&mut self, from: &mut Reader) -> Result<(), DatumError> {
        let before = from.left();
        from.skip_sized()?;
        self.take(before - from.left() + ALLOCATION_BYTES)
    }

    fn value(&mut self, schema: &Schema, from: &mut Reader) -> Result<(), DatumError> {
        self.left = self.left.checked_sub(1).ok_or_else(DatumError::deep)?;
        self.take(VALUE_BYTES)?;
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
            Schema::Bytes | Schema::String => self.sized(from)?,
            Schema::Fixed(fixed) => {
                from.take(fixed.size)?;
                self.take(fixed.size + ALLOCATION_BYTES)?;
            }
            Schema::Enum(symbols) => {
                let place = from.symbol(symbols.symbols.len())?;
                self.take(symbols.symbols[place].len() + ALLOCATION_BYTES)?;
            }
            Schema::Union(union) => {
                let place = from.branch(union.variants().len())?;
                self.value(&union.variants()[place], from)?;
            }
            Schema::Record(record) => {
                self.take(self.record)?;
                for field in &record.fields {
                    self.take(FIELD_BYTES + field.name.len())?;
                    self.value(&field.schema, from)?;
                }
            }
            Schema::Array(array) => {
                self.blocks(from, |walk, from| walk.value(&array.items, from))?
            }
            Schema::Map(map) => {
                self.take(self.record)?;
                self.blocks(from, |walk, from| {
                    walk.take(2 * FIELD_BYTES)?;
                    walk.sized(from)?;
                    walk.value(&map.types, from)
                })?;
            }
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
/// Maximum memory of all values in proportion to their bytes: an array of short texts takes less.
const MAX_BYTES_PER_BYTE: usize = 128;
/// So much they may take beside that.
const FREE_BYTES: usize = 4 << 20;
const MAX_BYTES: usize = 64 << 20;
/// What a value takes as it was written, and as it is read.
const VALUE_BYTES: usize = 2 * size_of::<Value>();
/// What a field takes beside its name and value.
const FIELD_BYTES: usize = size_of::<String>() + ALLOCATION_BYTES;
/// What something of any size takes beside its bytes.
const ALLOCATION_BYTES: usize = 16;
