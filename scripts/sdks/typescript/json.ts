/** JSON without loss: an integer that no `number` holds exactly is a `bigint`, there and back. */

import { parse, stringify } from 'lossless-json';

/** Nothing shorter can be inexact, and JSON.parse is several times as fast. */
const LONG_NUMBER = /\d{16}/;

export function parseJson(text: string): any {
    return LONG_NUMBER.test(text) ? parse(text, undefined, parseNumber) : JSON.parse(text);
}

export function stringifyJson(value: unknown): string | undefined {
    return stringify(value);
}

function parseNumber(digits: string): number | bigint {
    const number = Number(digits);
    return Number.isSafeInteger(number) || /[.eE]/.test(digits) ? number : BigInt(digits);
}
