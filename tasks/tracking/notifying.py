"""A notification block of Prefect's for any address that Apprise knows. Prefect's own are for one service each.

Prefect's server makes such a block itself when it sends a message, so it has to have imported this file.
"""

from prefect.blocks.notifications import AppriseNotificationBlock


class AppriseAddress(AppriseNotificationBlock):
    """Sends messages to an Apprise address, such as `mailto://…`."""

    _block_type_name = "Apprise Address"
    _block_type_slug = "autodidact-apprise-address"
