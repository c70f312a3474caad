from hypothesis import settings

# A slow machine is not a failure: nothing in the tests is timed.
settings.register_profile("kodo", deadline=None)
settings.load_profile("kodo")
