/** Calls the faulty gateway with the TypeScript SDK and tells what comes of it, a line a call. */

import { Gateway, GatewayError } from 'thingsboard-gateway-client';

const address = process.argv[2] ?? '';
const gateway = new Gateway(address, 'key', { timeoutSeconds: 1 });

async function tell(what: string, call: () => Promise<unknown>): Promise<void> {
    let told: unknown;
    try {
        told = await call();
    } catch (error) {
        told = error instanceof GatewayError ? `GatewayError ${error.status} ${error.code}` : (error as Error).name;
    }
    console.log(`${what}: ${told}`);
}

await tell('proxy', () => gateway.devices.get({ device_id: 'proxy' }));
await tell('silent', () => gateway.devices.get({ device_id: 'silent' }));
await tell('patient', async () => (await gateway.devices.get({ device_id: 'patient' })).data.name);
await tell('export', () => gateway.telemetry.export({ device_id: 'cut' }));
await tell('stream', async () => {
    const told: string[] = [];
    for await (const { type, data, id } of gateway.stream(['breaking'])) {
        told.push(`${type} ${data.value} ${id}`);
    }
    return told.join('; ');
});
await tell('refused', () => gateway.stream(['refused']).next());
await tell('nobody', () => new Gateway('http://127.0.0.1:1', 'key').stream(['any']).next());
await tell('ended', async () => {
    const leaving = new AbortController();
    const events = gateway.stream(['quiet'], { signal: leaving.signal });
    await events.next();
    const coming = events.next();
    leaving.abort();
    return coming;
});
