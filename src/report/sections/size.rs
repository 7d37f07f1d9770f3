//! Size, and the proofs that nothing was lost on the way to it.

use super::super::document::{Block, Cell, Section, Table};
use super::super::number::{bytes, count, significant};
use super::super::row::weight_bytes;
use super::{model, record_heading};
use crate::record::{Arm, Model, Proof, Record};

/// Bytes of every layout and whether the conversion was proven.
pub fn section(records: &[Record]) -> Section {
    let mut blocks = Vec::new();
    for (i, record) in records.iter().enumerate() {
        if record.proofs.is_empty() && floats(record).is_empty() {
            continue;
        }
        blocks.extend(record_heading(records, i));
        blocks.push(Block::Table(table(record)));
        let failures =
            record.proofs.iter().filter_map(|p| Some(format!("{}: {}", p.layout, p.failure.as_ref()?)));
        blocks.extend(failures.map(Block::warning));
    }
    if blocks.is_empty() {
        blocks.push(Block::text("Not measured: no conversion was proven in these records."));
    }
    Section { id: "size", title: "Size and proofs", blocks }
}

fn table(record: &Record) -> Table {
    let headings =
        ["Layout", "Bits a weight#", "All ternary weights#", "Weights", "Scale in a file", "Matrices#"];
    let mut table = Table::new("Every layout, unpacked again and compared weight by weight", &headings);
    let most = record.proofs.iter().map(|p| p.bits_per_weight);
    let most = most.chain(floats(record).iter().map(|f| f.2)).fold(0.0, f64::max);
    let mut proofs: Vec<&Proof> = record.proofs.iter().collect();
    let key = |p: &&Proof| (p.model.clone(), p.failure.is_some());
    proofs.sort_by(|a, b| key(a).cmp(&key(b)).then(a.bits_per_weight.total_cmp(&b.bits_per_weight)));
    let several = proofs.iter().any(|p| p.model != proofs[0].model);
    for p in proofs {
        let name = if several { model(record, &p.model).map_or("", |m| m.name.as_str()) } else { "" };
        let layout = Cell::text(&p.layout).detail(name);
        if p.failure.is_some() {
            table.row(vec![
                layout,
                Cell::none(),
                Cell::none(),
                if p.changed {
                    Cell::text("CHANGED, see below")
                } else {
                    Cell {
                        text: "cannot hold this model, see below".into(),
                        missing: true,
                        ..Cell::default()
                    }
                },
                Cell::none(),
                Cell::none(),
            ]);
            continue;
        }
        let scale = if p.scale_error == 0.0 {
            Cell::text("exact")
        } else {
            Cell::figure(p.scale_error, format!("within {}", significant(p.scale_error, 2)))
        };
        table.row(vec![
            layout,
            Cell::figure(p.bits_per_weight, significant(p.bits_per_weight, 3)).bar(p.bits_per_weight / most),
            Cell::figure(p.bytes as f64, bytes(p.bytes)),
            Cell::text("all equal"),
            scale,
            Cell::figure(p.tensors as f64, count(p.tensors)),
        ]);
    }
    for (model, arm, bits) in floats(record) {
        table.row(vec![
            Cell::text("full precision").detail(&model.name),
            Cell::figure(bits, bits.to_string()).bar(bits / most),
            weight_bytes(record, arm).map_or_else(Cell::none, |n| Cell::figure(n as f64, bytes(n))),
            Cell::text("not ternary"),
            Cell::none(),
            Cell::none(),
        ]);
    }
    table
}

/// Full-precision models that ran, each with an arm that did and the bits of its weights.
fn floats(record: &Record) -> Vec<(&Model, &Arm, f64)> {
    let arm = |m: &Model| {
        let mine = record.arms.iter().filter(|a| a.subject.model == m.id);
        mine.filter_map(|a| Some((a, a.subject.float_bits()?.into()))).next()
    };
    record.models.iter().filter_map(|m| arm(m).map(|(arm, bits)| (m, arm, bits))).collect()
}
