// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Loops, the stack, calls, and the ways through a function.

use crate::assert_clean;
use crate::assert_gadgets;
use crate::gadgets_of;

#[test]
fn a_count_is_chosen_by_nobody() {
    assert_clean(
        "xor ecx, ecx
      1: cmp ecx, esi
         jae 2f
         add eax, [rdi + rcx*8]
         inc ecx
         jmp 1b
      2: ret",
    );
    assert_clean(
        "lea rdx, [rdi + rsi*8]
      1: cmp rdi, rdx
         je 2f
         add eax, [rdi]
         add rdi, 8
         jmp 1b
      2: ret",
    );
}

#[test]
fn a_count_from_where_somebody_chooses() {
    assert_gadgets(
        1,
        "mov ecx, edx
      1: cmp ecx, esi
         jae 2f
         add eax, [rdi + rcx*8]
         inc ecx
         jmp 1b
      2: ret",
    );
}

#[test]
fn a_count_that_is_spilled() {
    assert_clean(
        "push rbx
         sub rsp, 32
         mov rbx, rdi
         xor ecx, ecx
      1: mov [rsp + 24], rcx
         lea rdi, [rsp + 8]
         call g
         mov rcx, [rsp + 24]
         add eax, [rbx + rcx*8]
         inc rcx
         cmp rcx, 16
         jne 1b
         add rsp, 32
         pop rbx
         ret",
    );
}

#[test]
fn an_index_that_is_spilled() {
    assert_gadgets(
        1,
        "sub rsp, 24
         mov [rsp + 8], edi
         call g
         mov eax, [rsp + 8]
         cmp eax, 4
         jae 1f
         mov rax, [rax*8 + four]
      1: add rsp, 24
         ret",
    );
    assert_clean(
        "sub rsp, 24
         and edi, 3
         mov [rsp + 8], edi
         call g
         mov eax, [rsp + 8]
         mov rax, [rax*8 + four]
         add rsp, 24
         ret",
    );
}

#[test]
fn what_a_function_changes_by_a_pointer() {
    assert_gadgets(
        1,
        "sub rsp, 24
         mov qword ptr [rsp + 8], 0
         lea rdi, [rsp + 8]
         call g
         mov rax, [rsp + 8]
         mov rax, [rax*8 + four]
         add rsp, 24
         ret",
    );
}

#[test]
fn what_a_function_returns() {
    assert_gadgets(
        1,
        "sub rsp, 8\n call g\n mov eax, eax\n mov rax, [rax*8 + four]\n ret",
    );
}

#[test]
fn an_address_that_is_passed_on() {
    assert_gadgets(
        1,
        "cmp edi, 4
         jae 1f
         mov eax, edi
         lea rdi, [rax*8 + written]
         jmp g
      1: ret",
    );
    assert_gadgets(
        1,
        "sub rsp, 8
         mov esi, esi
         lea rdi, [rdi + rsi*8]
         xor esi, esi
         call g
         add rsp, 8
         ret",
    );
    assert_clean("and edi, 3\n lea rdi, [rdi*8 + written]\n jmp g");
    // Where the table ends, as an end of what is iterated over.
    assert_clean("lea rdi, [rip + written + 32]\n jmp g");
}

#[test]
fn either_of_two_tables() {
    let code = |mask: &str| {
        format!(
            "lea rax, [rip + bytes]
             lea rcx, [rip + behind]
             test esi, esi
             cmovne rax, rcx
             and edi, {mask}
             movzx eax, byte ptr [rax + rdi]
             ret"
        )
    };
    assert_clean(&code("0xfff"));
    assert_gadgets(1, &code("0x1fff"));
}

#[test]
fn a_pointer_that_either_branch_makes() {
    // One of the two adds an index that nothing bounds.
    assert_gadgets(
        1,
        "cmp esi, 4096
         jae 1f
         mov eax, esi
         lea rax, [rax + bytes]
         jmp 2f
      1: mov rax, [rdi]
      2: movzx eax, byte ptr [rax]
         ret",
    );
}

#[test]
fn code_that_an_exception_enters() {
    assert_gadgets(
        1,
        "xor eax, eax
         ret
      1: mov rax, [rdi*8 + four]
         ret",
    );
}

#[test]
fn code_that_a_static_key_enters() {
    // With the table of jumps, the index is known where the jump goes to; without, it is not.
    let code = |table: &str| {
        format!(
            "and edi, 3
             jmp 2f
          2: .byte 0x0f, 0x1f, 0x44, 0, 0
             xor eax, eax
             ret
          3: mov rax, [rdi*8 + four]
             ret
             .section {table}, \"aw\"
             .long 2b - ., 3b - .
             .quad 0
             .text"
        )
    };
    assert_clean(&code("__jump_table"));
    assert_gadgets(1, &code("other"));
}

#[test]
fn a_gadget_names_the_instructions_that_made_its_index() {
    let gadgets = gadgets_of(
        "mov eax, edi
         shr eax, 6
         cmp eax, 4
         jae 1f
         mov rax, [rax*8 + four]
      1: ret",
    );
    let [gadget] = &gadgets[..] else {
        panic!("{gadgets:#?}");
    };

    assert!(gadget.instruction.contains("mov rax,[rax*8"), "{gadget:#?}");
    assert!(gadget.reason.contains("four"), "{gadget:#?}");
    assert!(
        gadget
            .history
            .iter()
            .any(|line| line.ends_with("shr eax,6")),
        "{gadget:#?}"
    );
}
