"""A Prefect notification block for any Apprise address. Prefect's own blocks cover one service each.

Prefect's server creates the block when it sends a message, so it must have imported this file.
"""

from prefect.blocks.notifications import AppriseNotificationBlock


class AppriseAddress(AppriseNotificationBlock):
    """Sends messages to an Apprise address, such as `mailto://…`."""

    _block_type_name = "Apprise Address"
    _block_type_slug = "autodidact-apprise-address"
