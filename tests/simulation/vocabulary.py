"""The names and values of the small worlds: few, so that events and rules meet."""

EVENT_NAMES = ("Order Completed", "Page Viewed", "Cart Viewed", "Search")
PATHS = ("/pricing", "/pricing/pro", "/home", "/cart")
PLANS = ("free", "pro", "team")
CITIES = ("Kyiv", "Lima", "Oslo")
