// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What bounds an index, and what does not.

use crate::assert_clean;
use crate::assert_gadgets;

#[test]
fn a_compare_does_not_bound_an_index() {
    assert_gadgets(
        1,
        "cmp edi, 4096
         jae 1f
         mov eax, edi
         movzx eax, byte ptr [rax + bytes]
         ret
      1: xor eax, eax
         ret",
    );
}

#[test]
fn the_value_behind_a_gadget_is_not_trusted_either() {
    // The shape of `lookup` before it was bounded: a byte that selects a line of a table.
    assert_gadgets(
        2,
        "cmp edi, 4096
         jae 1f
         mov eax, edi
         movzx eax, byte ptr [rax + bytes]
         mov rax, [rax*8 + four]
         ret
      1: xor eax, eax
         ret",
    );
}

#[test]
fn an_index_into_an_object_of_unknown_size() {
    assert_gadgets(
        1,
        "cmp rsi, rdx
         jae 1f
         mov rax, [rdi + rsi*8]
         ret
      1: xor eax, eax
         ret",
    );
}

#[test]
fn an_index_that_is_added_to_the_pointer_before() {
    assert_gadgets(
        1,
        "cmp esi, 16
         jae 1f
         mov esi, esi
         lea rdi, [rdi + rsi*8]
         mov rax, [rdi + 16]
         ret
      1: xor eax, eax
         ret",
    );
}

#[test]
fn a_store_is_a_gadget_as_well() {
    assert_gadgets(
        1,
        "cmp edi, 4
         jae 1f
         mov eax, edi
         mov [rax*8 + written], rsi
      1: ret",
    );
}

#[test]
fn array_index_nospec_bounds_an_index() {
    assert_clean(
        "mov eax, edi
         cmp rax, 4096
         jae 1f
         cmp rax, 4096
         sbb rcx, rcx
         and rax, rcx
         movzx eax, byte ptr [rax + bytes]
         ret
      1: xor eax, eax
         ret",
    );
}

#[test]
fn array_index_nospec_of_another_index_does_not() {
    assert_gadgets(
        1,
        "mov eax, edi
         cmp rsi, 4096
         sbb rcx, rcx
         and rax, rcx
         movzx eax, byte ptr [rax + bytes]
         ret",
    );
}

#[test]
fn array_index_nospec_with_too_high_a_limit_does_not() {
    assert_gadgets(
        1,
        "mov eax, edi
         cmp rax, 4097
         sbb rcx, rcx
         and rax, rcx
         movzx eax, byte ptr [rax + bytes]
         ret",
    );
}

#[test]
fn array_index_nospec_with_a_limit_from_memory() {
    assert_clean(
        "mov rcx, [rdi]
         cmp rsi, rcx
         jae 1f
         cmp rsi, rcx
         sbb rdx, rdx
         and rsi, rdx
         mov rax, [rdi + rsi*8 + 8]
         ret
      1: xor eax, eax
         ret",
    );
}

#[test]
fn a_mask_bounds_an_index() {
    assert_clean("and edi, 0xfff\n movzx eax, byte ptr [rdi + bytes]\n ret");
    assert_clean("and edi, 3\n mov rax, [rdi*8 + four]\n ret");
}

#[test]
fn a_mask_that_is_too_wide_for_the_table_does_not() {
    assert_gadgets(
        1,
        "and edi, 0x1fff\n movzx eax, byte ptr [rdi + bytes]\n ret",
    );
    assert_gadgets(1, "and edi, 7\n mov rax, [rdi*8 + four]\n ret");
    // The last element is within, and what is loaded goes past it.
    assert_gadgets(1, "and edi, 0xfff\n mov eax, [rdi + bytes]\n ret");
}

#[test]
fn the_size_of_an_integer_bounds_an_index() {
    assert_clean("movzx eax, dil\n movzx eax, byte ptr [rax + bytes]\n ret");
    assert_gadgets(1, "movzx eax, di\n movzx eax, byte ptr [rax + bytes]\n ret");
    assert_gadgets(1, "movzx eax, dil\n mov rax, [rax*8 + four]\n ret");
}

#[test]
fn a_shift_bounds_an_index() {
    assert_clean("shr edi, 30\n mov rax, [rdi*8 + four]\n ret");
    assert_gadgets(1, "shr edi, 29\n mov rax, [rdi*8 + four]\n ret");
}

#[test]
fn pages_that_a_hash_selects() {
    // Two pages of 2,048 bytes, selected by the highest bit of a product.
    assert_clean(
        "mov eax, edi
         shr eax, 11
         imul eax, eax, 0x9e3779b1
         shr eax, 31
         shl eax, 11
         and edi, 0x7ff
         add rax, rdi
         movzx eax, byte ptr [rax + bytes]
         mov rax, [rax*8 + four]
         ret",
    );
}

#[test]
fn the_contents_of_a_constant_table_bound_an_index() {
    // All of `bytes` are below 4; `behind` has bytes that are not.
    assert_clean(
        "and edi, 0xfff\n movzx eax, byte ptr [rdi + bytes]\n mov rax, [rax*8 + four]\n ret",
    );
    assert_gadgets(
        1,
        "and edi, 0xfff\n movzx eax, byte ptr [rdi + behind]\n mov rax, [rax*8 + four]\n ret",
    );
}

#[test]
fn the_contents_of_memory_that_is_written_do_not() {
    assert_gadgets(
        1,
        "mov eax, [rip + written]\n mov rax, [rax*8 + four]\n ret",
    );
}

#[test]
fn a_remainder_bounds_an_index() {
    assert_clean(
        "mov eax, edi
         xor edx, edx
         mov ecx, 4
         div ecx
         mov rax, [rdx*8 + four]
         ret",
    );
}

#[test]
fn a_conditional_move_bounds_what_it_compared() {
    assert_clean(
        "mov eax, edi
         mov ecx, 3
         cmp eax, 4
         cmovae eax, ecx
         mov rax, [rax*8 + four]
         ret",
    );
    // The other way round.
    assert_gadgets(
        1,
        "mov eax, edi
         mov ecx, 3
         cmp eax, 4
         cmovb eax, ecx
         mov rax, [rax*8 + four]
         ret",
    );
    // Another value was compared.
    assert_gadgets(
        1,
        "mov eax, edi
         mov ecx, 3
         cmp esi, 4
         cmovae eax, ecx
         mov rax, [rax*8 + four]
         ret",
    );
}

#[test]
fn a_binary_search_of_fixed_depth() {
    assert_clean(
        "xor eax, eax
         cmp [rdi + 4], esi
         setbe al
         add eax, eax
         xor ecx, ecx
         cmp [rdi + rax*4], esi
         setbe cl
         or eax, ecx
         mov rax, [rax*8 + four]
         ret",
    );
}

#[test]
fn a_byte_whose_values_only_a_compare_limits() {
    // In bounds of nothing that is known here, but somebody compares it.
    assert_gadgets(
        1,
        "movzx eax, byte ptr [rdi]
         cmp eax, 16
         jae 1f
         mov eax, [rdi + rax*4 + 64]
         ret
      1: xor eax, eax
         ret",
    );
    assert_clean(
        "movzx eax, byte ptr [rdi]
         and eax, 15
         mov eax, [rdi + rax*4 + 64]
         ret",
    );
}
