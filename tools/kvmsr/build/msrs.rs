// SPDX-License-Identifier: Apache-2.0 OR MIT

//! MSRs and their fields.

use std::collections::HashMap;
use std::collections::HashSet;
use std::error::Error;

use serde::Deserialize;

use crate::literal;
use crate::rows;

/// A row of `msrs.csv`, with data from the other files.
pub struct Msr {
    pub first: u32,
    pub count: u32,
    pub stride: u32,
    pub name: String,
    pub owner: String,
    /// In the order of the file.
    pub aliases: Vec<Alias>,
    /// As a Rust literal.
    fields: Vec<String>,
}

#[derive(Deserialize)]
struct MsrRow {
    index: String,
    count: u32,
    stride: u32,
    name: String,
    vendor: String,
}

/// A row of `aliases.csv`.
#[derive(Deserialize)]
pub struct Alias {
    name: String,
    pub vendor: String,
    pub alias: String,
    pub source: String,
}

#[derive(Deserialize)]
struct FieldRow {
    name: String,
    vendor: String,
    /// In `variants.csv` only.
    #[serde(default)]
    variant: String,
    hi: u8,
    lo: u8,
    field: String,
    values: String,
    source: String,
}

#[derive(Deserialize, Eq, Hash, PartialEq)]
struct Address {
    name: String,
    hi: u8,
    lo: u8,
    field: String,
}

/// A row of `vmx_controls.csv`.
#[derive(Deserialize)]
struct Control {
    bit: u8,
    control: String,
    registers: String,
    source: String,
}

/// Reads the files about MSRs.
pub fn read() -> Result<Vec<Msr>, Box<dyn Error>> {
    let mut aliases: HashMap<(String, String), Vec<Alias>> = HashMap::new();

    for alias in rows::read::<Alias>("aliases.csv")? {
        aliases
            .entry((alias.name.clone(), alias.vendor.clone()))
            .or_default()
            .push(alias);
    }
    let mut fields = fields()?;
    let mut msrs = Vec::new();

    for row in rows::read::<MsrRow>("msrs.csv")? {
        // One index has two MSRs. Each has its vendor's fields.
        msrs.push(Msr {
            first: literal::index(&row.index)?,
            count: row.count,
            stride: row.stride,
            aliases: aliases
                .remove(&(row.name.clone(), row.vendor.clone()))
                .unwrap_or_default(),
            fields: fields.remove(&row.name).unwrap_or_default(),
            name: row.name,
            owner: row.vendor,
        });
    }
    if let Some(name) = fields.keys().next() {
        return Err(format!("{name} has fields, but no index").into());
    }
    Ok(msrs)
}

/// Fields of registers by name. Fields of all CPUs come first.
fn fields() -> Result<HashMap<String, Vec<String>>, Box<dyn Error>> {
    let addresses = rows::read::<Address>("addresses.csv")?;
    let controls = rows::read::<Control>("vmx_controls.csv")?;
    let mut fields: HashMap<_, Vec<_>> = HashMap::new();
    // The bits of a register's names, to find the register of a variant's condition.
    let mut places = HashMap::new();
    let mut wholes = HashSet::new();

    for file in ["own_fields.csv", "fields.csv", "variants.csv"] {
        for row in rows::read::<FieldRow>(file)? {
            if !rows::is_wanted(&row.source) {
                continue;
            }
            let of = fields.entry(row.name.clone()).or_default();
            let is_address = addresses.iter().any(|address| {
                (&address.name, address.hi, address.lo, &address.field)
                    == (&row.name, row.hi, row.lo, &row.field)
            });

            places
                .entry((row.name.clone(), row.field.clone()))
                .or_insert((row.hi, row.lo));
            // In own_fields.csv, a field can contain fields of other sources.
            let is_part = file == "fields.csv" && wholes.contains(&row.name);

            if file == "own_fields.csv" {
                wholes.insert(row.name.clone());
            }
            of.push(field(&row, is_address, is_part, &places)?);
            if row.variant.is_empty() {
                of.extend(control_bits(&row, &controls)?);
            }
        }
    }
    Ok(fields)
}

fn field(
    row: &FieldRow,
    is_address: bool,
    is_part: bool,
    places: &HashMap<(String, String), (u8, u8)>,
) -> Result<String, Box<dyn Error>> {
    let mut values = Vec::new();

    for value in row.values.split(';').filter(|value| !value.is_empty()) {
        let (number, meaning) = value
            .split_once('=')
            .ok_or_else(|| format!("{}: '{value}' is not a value", row.name))?;

        values.push(format!("({}, {meaning:?})", literal::number(number)?));
    }
    let (name, when) = variant(row, places)?;

    Ok(format!(
        "Field {{ bits: Bits {{ hi: {}, lo: {} }}, name: {:?}, owner: {}, values: {}, address: \
         {is_address}, variant: {}, when: {when}, part: {is_part}, source: {:?} }}",
        row.hi,
        row.lo,
        row.field,
        literal::owner(&row.vendor)?,
        literal::slice(values),
        literal::some(name.as_deref()),
        row.source,
    ))
}

/// The name of a variant and its condition on the register's value, from texts such as
/// `Nehalem;SandyBridge`, `proprietary;bit63=0` and `gpa_register;INFO=18_or_19`.
fn variant(
    row: &FieldRow,
    places: &HashMap<(String, String), (u8, u8)>,
) -> Result<(Option<String>, String), Box<dyn Error>> {
    if row.variant.is_empty() {
        return Ok((None, "None".to_owned()));
    }
    let (conditions, names): (Vec<_>, Vec<_>) =
        row.variant.split(';').partition(|part| part.contains('='));
    let name = names.join(", ").replace('_', " ");
    let Some((what, values)) = conditions.first().and_then(|text| text.split_once('=')) else {
        return Ok((Some(name), "None".to_owned()));
    };
    let (hi, lo) = match what.strip_prefix("bit") {
        Some(bit) => (bit.parse()?, bit.parse()?),
        None => *places
            .get(&(row.name.clone(), what.to_owned()))
            .ok_or_else(|| format!("{} has no field '{what}'", row.name))?,
    };
    let values: Vec<_> = values
        .split("_or_")
        .map(|value| Ok(literal::number(value)?.to_string()))
        .collect::<Result<_, Box<dyn Error>>>()?;
    let when = format!(
        "Some(When {{ bits: Bits {{ hi: {hi}, lo: {lo} }}, values: {} }})",
        literal::slice(values)
    );

    Ok((Some(name), when))
}

/// The bits of a field of VMX controls.
fn control_bits(row: &FieldRow, controls: &[Control]) -> Result<Vec<String>, Box<dyn Error>> {
    controls
        .iter()
        .filter(|control| rows::is_wanted(&control.source))
        .filter(|control| control.registers.split(';').any(|name| name == row.name))
        .filter(|control| row.lo + control.bit <= row.hi)
        .map(|control| {
            let bit = row.lo + control.bit;

            Ok(format!(
                "Field {{ bits: Bits {{ hi: {bit}, lo: {bit} }}, name: \"{}.{}\", owner: {}, \
                 values: &[], address: false, variant: None, when: None, part: true, source: {:?} \
                 }}",
                row.field,
                control.control,
                literal::owner(&row.vendor)?,
                control.source
            ))
        })
        .collect()
}

/// The arrays `MSRS` and `ELEMENTS`.
pub fn arrays(msrs: &[Msr]) -> String {
    let mut elements = Vec::new();
    let mut items = Vec::new();

    for (at, msr) in msrs.iter().enumerate() {
        elements.extend((0..msr.count).map(|number| (msr.first + number * msr.stride, at)));
        items.push(format!(
            "Msr {{ first: {:#x}, count: {}, stride: {}, name: {:?}, owner: {}, aliases: {}, \
             fields: {} }}",
            msr.first,
            msr.count,
            msr.stride,
            msr.name,
            literal::owner(&msr.owner).unwrap_or_default(),
            literal::slice(other_names(msr).map(literal::quoted)),
            literal::slice(&msr.fields),
        ));
    }
    elements.sort_unstable();
    let elements: Vec<_> = elements
        .iter()
        .map(|(index, at)| format!("({index:#x}, {at})"))
        .collect();

    literal::table("MSRS", "Msr", &items) + &literal::table("ELEMENTS", "(u32, u16)", &elements)
}

/// The other names, without repeated spellings.
fn other_names(msr: &Msr) -> impl Iterator<Item = &str> {
    let mut seen = vec![msr.name.replace("{n}", "0").to_ascii_lowercase()];

    msr.aliases.iter().filter_map(move |alias| {
        let lower = alias.alias.to_ascii_lowercase();

        (!seen.contains(&lower)).then(|| {
            seen.push(lower);
            alias.alias.as_str()
        })
    })
}
