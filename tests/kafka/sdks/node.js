// The SDK for servers, as it is; only `host` is ours.
const [, , sdk, host, writeKey] = process.argv;
const { Analytics } = require(sdk);

const analytics = new Analytics({ writeKey, host });
const failures = [];
analytics.on("error", (error) => failures.push(error));
const timestamp = new Date("2026-03-01T09:00:00.000Z");
const common = { userId: "nora", anonymousId: "node-1" };
analytics.identify({ ...common, traits: { email: "Nora@Example.org", plan: "free" } });
analytics.track({ ...common, event: "Order Completed", properties: { total: 12.5, lines: [{ sku: "ä-1" }] }, timestamp });
analytics.page({ ...common, name: "Pricing", category: "Docs", properties: { path: "/pricing" } });
analytics.screen({ ...common, name: "Home" });
analytics.group({ ...common, groupId: "acme", traits: { seats: 5 } });
analytics.alias({ userId: "nora", previousId: "old-nora" });
analytics.closeAndFlush({ timeout: 20000 }).then(() => {
  if (failures.length) {
    console.error(failures);
    process.exit(1);
  }
});
